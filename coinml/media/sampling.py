"""Sampling the clips of one video by presentation time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media.clip_placement import place_clips
from coinml.media.decoders import Decoder, DecoderUnsuitedError
from coinml.media.open_file import VideoPath
from coinml.media.pyav_decoder import PyavDecoder
from coinml.media.random_access_decoders import DecordDecoder, TorchcodecDecoder
from coinml.media.records import ClipSpec, DecoderName, SampledClips
from coinml.media.timeline import Timeline, count_timeline, read_timeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

Allocate = Callable[[tuple[int, ...]], "NDArray[np.uint8]"]

_MAX_SUBSTITUTED = 0.5


def sample(
    path: VideoPath,
    spec: ClipSpec | None = None,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    decoder: str = "auto",
    allocate: Allocate | None = None,
) -> SampledClips:
    """Read the clips of a video, or of an extent of it.

    Args:
        path: The file.
        spec: How clips are placed; default: 8 clips of 16 frames at stride 4.
        start_s: Start of the extent in seconds from the first frame.
        end_s: End of the extent.
        decoder: `auto` and `pyav` are PyAV. `decord` and `torchcodec` refuse files of which they
            give other pictures (open groups of pictures, transport streams, edit lists);
            pictures of interlaced files, odd heights and full-range VP9 may still differ from
            PyAV's. `SampledClips.decoder` says which one was used.
        allocate: Creates the uint8 array of the frames, given its shape.

    Raises:
        CorruptVideoError: The file does not open, or more than half of the wanted frames do
            not decode.
        InvalidInputError: No such file or decoder, an extent outside the video, or a file that
            the chosen decoder cannot read.
        LocalError: The chosen decoder is not installed or does not load.
    """
    spec = spec or ClipSpec()
    reader = _decoder(decoder)
    timeline = read_timeline(path)
    for attempt in (timeline, None):
        # Second attempt, with a timeline from a full decode: for packets whose frames have other
        # times (interlaced fields, broken time stamps), and for key frames at which decoding
        # cannot start (gradual intra refresh).
        if attempt is None:
            timeline = count_timeline(path)
        buffer = _ClipBuffer(place_clips(timeline, spec, start_s=start_s, end_s=end_s), allocate)
        try:
            _read(path, timeline, reader, buffer)
        except CorruptVideoError:
            if timeline.counted:
                raise
            continue
        if not buffer.missing or timeline.counted:
            break
    substituted = buffer.substitute()
    if substituted > _MAX_SUBSTITUTED * buffer.numbers.size:
        raise CorruptVideoError(
            f"{Path(path).name}: {substituted} of {buffer.numbers.size} frames do not decode"
        )
    return SampledClips(
        frames=buffer.frames,
        timestamps_s=timeline.times_s[buffer.numbers],
        decoder=reader.name,
        frames_decoded=len(buffer.filled),
        frames_substituted=substituted,
    )


class _ClipBuffer:
    """The clips while frames are filled in.

    Attributes:
        numbers: int64 (clips, frames): the number of each frame on the timeline.
        filled: For each frame that was decoded, one of its slots (clip, position).
    """

    def __init__(self, numbers: NDArray[np.int64], allocate: Allocate | None) -> None:
        self.numbers = numbers
        self.filled: dict[int, tuple[int, int]] = {}
        self._wanted: dict[int, list[tuple[int, int]]] = {}
        for (clip, position), number in np.ndenumerate(numbers):
            self._wanted.setdefault(int(number), []).append((clip, position))
        self._allocate = allocate or (lambda shape: np.empty(shape, dtype=np.uint8))
        self._frames: NDArray[np.uint8] | None = None

    @property
    def wanted(self) -> list[int]:
        return sorted(self._wanted)

    @property
    def missing(self) -> list[int]:
        return [number for number in self._wanted if number not in self.filled]

    @property
    def frames(self) -> NDArray[np.uint8]:
        if self._frames is None:
            raise CorruptVideoError("no frame decodes")
        return self._frames

    def keep(self, number: int, pixels: NDArray[np.uint8]) -> None:
        if self._frames is None:
            self._frames = self._allocate((*self.numbers.shape, *pixels.shape))
        if pixels.shape != self._frames.shape[2:]:
            raise CorruptVideoError(
                f"the frame size changes from {self._frames.shape[2:4]} to {pixels.shape[:2]}"
            )
        for slot in self._wanted[number]:
            self._frames[slot] = pixels
            self.filled.setdefault(number, slot)

    def substitute(self) -> int:
        """Fill missing frames with the nearest decoded one; return the number of slots filled."""
        if not self.filled:
            raise CorruptVideoError("no wanted frame decodes")
        decoded = np.array(sorted(self.filled))
        count = 0
        for number in self.missing:
            nearest = int(decoded[np.abs(decoded - number).argmin()])
            for slot in self._wanted[number]:
                self.frames[slot] = self.frames[self.filled[nearest]]
                self.numbers[slot] = nearest
                count += 1
        return count


def _read(path: VideoPath, timeline: Timeline, decoder: Decoder, buffer: _ClipBuffer) -> None:
    """Fill the buffer with the frames that decode."""
    try:
        decoder.read(path, timeline, buffer.wanted, buffer.keep)
    except DecoderUnsuitedError as err:
        # The file may be good: the chosen decoder does not suit it.
        raise InvalidInputError(f"{err}; try the decoder `auto`") from err
    except CorruptVideoError:
        if not buffer.filled:
            raise
    if not buffer.filled:
        raise CorruptVideoError(f"{Path(path).name}: no wanted frame decodes")


def _decoder(name: str) -> Decoder:
    if name not in get_args(DecoderName):
        raise InvalidInputError(f"decoder {name!r} is unknown; known: {get_args(DecoderName)}")
    kinds: dict[str, type[Decoder]] = {
        kind.name: kind for kind in (PyavDecoder, DecordDecoder, TorchcodecDecoder)
    }
    return kinds.get(name, PyavDecoder)()
