"""Video files: probing, checking, sampling, writing; the only importer of av and the decoders."""

from importlib import import_module
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


_LAZY = {"decoders_here": "coinml.media.random_access_decoders", "sample": "coinml.media.sampling"}


def __getattr__(name: str) -> Any:
    """Import what needs numpy when it is first used."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
