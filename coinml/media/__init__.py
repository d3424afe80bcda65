"""Video files: what they are, whether they decode, their clips, and writing small ones.

The only package that imports decord and av, and it imports them when a file is opened and not
before, so that importing it costs nothing.
"""

from coinml.media.checking import check, unusable
from coinml.media.container import probe
from coinml.media.records import ClipSpec, MediaInfo, SampledClips, Verdict
from coinml.media.workers import DecodePool
from coinml.media.writing import write_video

__all__ = [
    "ClipSpec",
    "DecodePool",
    "MediaInfo",
    "SampledClips",
    "Verdict",
    "check",
    "probe",
    "unusable",
    "write_video",
]
