"""Embedding sets: Parquet parts in a folder that bears their fingerprint.

A set is `<root>/<dataset>/<set fingerprint>/` with `spec.json` and parts. A part is written whole
under another name and renamed (or, in a bucket, put in one piece), so that a part that can be
seen is a part that is complete; the checksums of its pages are verified whenever it is read.
Nothing is ever overwritten: many processes may append to one set, and another may compact it.
"""

from coinml.embedding_sets.listing import SetProblem, find_set, find_sets, list_sets
from coinml.embedding_sets.parts import BrokenPartError, VideoRows
from coinml.embedding_sets.sets import Done, EmbeddingSet, PartProblem
from coinml.embedding_sets.spec import SetSpec

__all__ = [
    "BrokenPartError",
    "Done",
    "EmbeddingSet",
    "PartProblem",
    "SetProblem",
    "SetSpec",
    "VideoRows",
    "find_set",
    "find_sets",
    "list_sets",
]
