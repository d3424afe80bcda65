"""Decoders with random access to frames by number: decord and torchcodec."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinml.media.container import probe
from coinml.media.decoders import (
    DecoderMissingError,
    DecoderUnsuitedError,
    Keep,
)
from coinml.media.open_file import OpenFile, VideoPath, whole
from coinml.media.picture_bounds import kept_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinml.media.timeline import Timeline

_PACKAGES = {"pyav": "av", "decord": "decord", "torchcodec": "torchcodec"}


def decoders_here() -> dict[str, str]:
    """Each decoder's version, or why it does not load on this machine.

    Imports all of them, and torch with torchcodec.
    """
    # Imported here since it is slow and decoding processes do not need it.
    from importlib.metadata import version

    found = {}
    for name in _PACKAGES:
        try:
            load_decoder(name)
        except DecoderMissingError as err:
            found[name] = str(err)
        else:
            found[name] = version(_PACKAGES[name])
    return found


class DecordDecoder:
    """decord, where it is installed: x86-64 only and no longer maintained."""

    name = "decord"

    def read(self, path: VideoPath, timeline: Timeline, numbers: Sequence[int], keep: Keep) -> None:
        """See `Decoder`."""
        decord = load_decoder(self.name)
        _refuse_unsuited(path, timeline, self.name)
        decord.logging.set_level(decord.logging.QUIET)
        try:
            # A confined process can read an open file and can open none.
            source = BytesIO(whole(path)) if isinstance(path, OpenFile) else str(path)
            reader = decord.VideoReader(source, num_threads=1)
            shown = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]
            difference = _difference(shown, timeline) or _too_large(reader[0].shape[:2])
            pixels = None if difference else reader.get_batch(list(numbers)).asnumpy()
        except Exception as err:
            # decord raises DECORDError, RuntimeError or IndexError for a file it cannot read.
            difference, pixels = _last_line(err), None
        if difference or pixels is None:
            raise DecoderUnsuitedError(f"{Path(path).name}: decord: {difference}")
        for number, picture in zip(numbers, pixels, strict=True):
            keep(number, picture)


class TorchcodecDecoder:
    """torchcodec, where its build matches torch's and FFmpeg's shared libraries are installed."""

    name = "torchcodec"

    def read(self, path: VideoPath, timeline: Timeline, numbers: Sequence[int], keep: Keep) -> None:
        """See `Decoder`."""
        decoders = load_decoder(self.name).decoders
        _refuse_unsuited(path, timeline, self.name)
        try:
            source = whole(path) if isinstance(path, OpenFile) else str(Path(path).absolute())
            reader = decoders.VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=1)
            difference = _too_large((reader.metadata.height, reader.metadata.width))
            if difference is None and len(reader) != len(timeline):
                difference = f"sees {len(reader)} frames, the file has {len(timeline)}"
            batch = None if difference else reader.get_frames_at(list(numbers))
            if batch is not None:
                shown = batch.pts_seconds.numpy()
                difference = _other_times(shown, timeline.times_s[list(numbers)], timeline)
        except Exception as err:
            # torchcodec raises RuntimeError, ValueError and others for a file it cannot read.
            difference, batch = _last_line(err), None
        if difference or batch is None:
            raise DecoderUnsuitedError(f"{Path(path).name}: torchcodec: {difference}")
        for number, picture in zip(numbers, batch.data.numpy(), strict=True):
            keep(number, picture)


def load_decoder(name: str) -> Any:
    """The package of a decoder: `pyav`, `decord` or `torchcodec`.

    Raises:
        DecoderMissingError: It is not installed, or does not load.
    """
    try:
        return importlib.import_module(_PACKAGES[name])
    except ModuleNotFoundError as err:
        raise DecoderMissingError(f"{name} is not installed here") from err
    except (ImportError, OSError, RuntimeError) as err:
        # torchcodec's RuntimeError is pages long, and its first line names no cause.
        cause = {
            "torchcodec": "it needs FFmpeg's shared libraries and a build that matches torch's"
        }
        reason = cause.get(name) or (str(err).strip().splitlines() or [""])[0][:200]
        raise DecoderMissingError(f"{name} does not load here ({reason})") from err


def _refuse_unsuited(path: VideoPath, timeline: Timeline, name: str) -> None:
    """Refuse a file of which the decoder would give wrong pictures, mostly at the right times."""
    reason = timeline.needs_pyav
    if timeline.counted:
        reason = "its frames have no usable times"
    elif timeline.bits > 8:
        # decord's FFmpeg (2020) gives wrong colours; torchcodec's depend on the installed FFmpeg.
        reason = f"{timeline.bits} bits a colour"
    elif probe(path).mirrored:
        reason = "its pictures are mirrored for display"
    if reason:
        raise DecoderUnsuitedError(f"{Path(path).name}: not for {name}: {reason}")


def _difference(shown: NDArray[np.floating[Any]], timeline: Timeline) -> str | None:
    """How a decoder's frames differ from the timeline, or None."""
    if len(shown) != len(timeline):
        return f"sees {len(shown)} frames, the file has {len(timeline)}"
    return _other_times(shown, timeline.times_s, timeline)


def _other_times(
    shown: NDArray[np.floating[Any]], times_s: NDArray[np.float64], timeline: Timeline
) -> str | None:
    # decord's times are float32, so late frames are slightly off.
    slack_s = max(timeline.period_s / 4, float(np.abs(times_s).max()) * 1e-6)
    if np.abs(shown - times_s).max() > slack_s:
        return "shows its frames at other times"
    return None


def _too_large(size: tuple[int, int]) -> str | None:
    if kept_size(size[1], size[0]) != (size[1], size[0]):
        return f"does not scale down frames of {size[1]}x{size[0]}"
    return None


def _last_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[-1][:200]
