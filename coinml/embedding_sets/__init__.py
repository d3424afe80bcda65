"""Embedding sets: Parquet parts in a folder named by the set's fingerprint.

A set is `<root>/<dataset>/<set fingerprint>/` with `spec.json` and parts. A part is written under
another name and renamed (or, in a bucket, uploaded as one object), so every part that is listed is
complete. Page checksums are verified on every read. Nothing is overwritten: many processes may
append to one set while another compacts it.
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
