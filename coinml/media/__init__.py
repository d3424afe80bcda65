"""Video files: what they are, whether they decode, their clips, and writing small ones.

The only package that imports av, decord and torchcodec, and it imports them when a file is opened
and not before, so that importing it costs nothing.
"""

from typing import TYPE_CHECKING, Any

from coinml.media.checking import check
from coinml.media.container import probe
from coinml.media.decode_pool import DecodePool
from coinml.media.full_decode import unusable
from coinml.media.records import ClipSpec, MediaInfo, SampledClips, Verdict
from coinml.media.writing import write_video

if TYPE_CHECKING:
    from coinml.media.random_access_decoders import decoders_here
    from coinml.media.sampling import sample

__all__ = [
    "ClipSpec",
    "DecodePool",
    "MediaInfo",
    "SampledClips",
    "Verdict",
    "check",
    "decoders_here",
    "probe",
    "sample",
    "unusable",
    "write_video",
]


def __getattr__(name: str) -> Any:
    """Load what needs numpy when it is first asked for."""
    if name == "decoders_here":
        from coinml.media.random_access_decoders import decoders_here

        return decoders_here
    if name == "sample":
        from coinml.media.sampling import sample

        return sample
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
