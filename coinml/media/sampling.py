"""The clips of one video, by presentation time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError
from coinml.media.clip_placement import place_clips
from coinml.media.decoders import Decoder, DecoderMissingError, DecoderUnsuitedError
from coinml.media.pyav_decoder import PyavDecoder
from coinml.media.random_access_decoders import DecordDecoder, TorchcodecDecoder
from coinml.media.records import ClipSpec, DecoderName, SampledClips
from coinml.media.timeline import Timeline, count_timeline, read_timeline

if TYPE_CHECKING:
    from numpy.typing import NDArray

Allocate = Callable[[tuple[int, ...]], "NDArray[np.uint8]"]

_MOST_SUBSTITUTED = 0.5


def sample(
    path: str | Path,
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
        spec: How clips are laid; the default is 8 clips of 16 frames at stride 4.
        start_s: Start of the extent in seconds from the first frame.
        end_s: End of the extent.
        decoder: `auto`, `pyav`, `decord` or `torchcodec`. The frames are the same. `auto` begins
            with PyAV, which decodes fewer frames on the way and reads more formats, and goes on
            to decord (which hangs on some good files, so that it is not the first) where PyAV
            fails. It never takes torchcodec, which is FFmpeg as PyAV is, decodes every frame on
            the way and brings torch into each decoding process.
        allocate: Makes the uint8 array that the frames are written to, given its shape.

    Raises:
        CorruptVideoError: The file does not open, or more than half of the wanted frames do
            not decode.
        InvalidInputError: No such file or decoder, an extent that the video does not have, or
            a file that the one chosen decoder cannot read.
        LocalError: The one chosen decoder is not installed or does not load here.
    """
    spec = spec or ClipSpec()
    decoders = _decoders(decoder)
    timeline = read_timeline(path)
    for attempt in (timeline, None):
        # Packets that promise frames at other times than those that come (interlaced fields,
        # broken time stamps), or key frames at which decoding cannot start (a picture that is
        # renewed bit by bit): go by what decodes.
        if attempt is None:
            timeline = count_timeline(path)
        canvas = _Canvas(place_clips(timeline, spec, start_s=start_s, end_s=end_s), allocate)
        try:
            used = _read(path, timeline, decoders, canvas)
        except CorruptVideoError:
            if timeline.counted:
                raise
            continue
        if not canvas.missing or timeline.counted:
            break
    substituted = canvas.substitute()
    if substituted > _MOST_SUBSTITUTED * canvas.places.size:
        raise CorruptVideoError(
            f"{Path(path).name}: {substituted} of {canvas.places.size} frames do not decode"
        )
    return SampledClips(
        frames=canvas.frames,
        timestamps_s=timeline.times_s[canvas.places],
        decoder=used,
        frames_decoded=len(canvas.filled),
        frames_substituted=substituted,
    )


class _Canvas:
    """The clips while they are filled in."""

    def __init__(self, places: NDArray[np.int64], allocate: Allocate | None) -> None:
        self.places = places
        self.filled: dict[int, tuple[int, int]] = {}
        self._wanted: dict[int, list[tuple[int, int]]] = {}
        for (clip, position), number in np.ndenumerate(places):
            self._wanted.setdefault(int(number), []).append((clip, position))
        self._allocate = allocate or (lambda shape: np.empty(shape, dtype=np.uint8))
        self._frames: NDArray[np.uint8] | None = None

    @property
    def numbers(self) -> list[int]:
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
            self._frames = self._allocate((*self.places.shape, *pixels.shape))
        if pixels.shape != self._frames.shape[2:]:
            raise CorruptVideoError(
                f"the picture's size changes from {self._frames.shape[2:4]} to {pixels.shape[:2]}"
            )
        for slot in self._wanted[number]:
            self._frames[slot] = pixels
            self.filled.setdefault(number, slot)

    def substitute(self) -> int:
        """Put the nearest decoded frame where one is missing; return the number of places."""
        if not self.filled:
            raise CorruptVideoError("no wanted frame decodes")
        there = np.array(sorted(self.filled))
        count = 0
        for number in self.missing:
            nearest = int(there[np.abs(there - number).argmin()])
            for slot in self._wanted[number]:
                self.frames[slot] = self.frames[self.filled[nearest]]
                self.places[slot] = nearest
                count += 1
        return count


def _read(path: str | Path, timeline: Timeline, decoders: list[Decoder], canvas: _Canvas) -> str:
    """Fill the canvas with the first decoder that can; return its name."""
    causes: list[CoinmlError] = []
    for decoder in decoders:
        try:
            decoder.read(path, timeline, canvas.numbers, canvas.keep)
        except (DecoderUnsuitedError, CorruptVideoError) as err:
            causes.append(err)
        except DecoderMissingError:
            if len(decoders) == 1:
                raise
        if canvas.filled:
            return decoder.name
    if causes and len(decoders) == 1 and isinstance(causes[0], DecoderUnsuitedError):
        # The file may be good: it is the choice of decoder that is wrong for it.
        raise InvalidInputError(f"{causes[0]}; decoder `auto` may do better") from causes[0]
    reasons = "; ".join(str(cause) for cause in causes)
    raise CorruptVideoError(reasons or f"{Path(path).name}: no wanted frame decodes")


def _decoders(name: str) -> list[Decoder]:
    """The decoders to try, in order."""
    if name not in get_args(DecoderName):
        raise InvalidInputError(f"decoder {name!r} is unknown; known: {get_args(DecoderName)}")
    if name == "auto":
        return [PyavDecoder(), DecordDecoder()]
    kinds: dict[str, type[Decoder]] = {
        kind.name: kind for kind in (PyavDecoder, DecordDecoder, TorchcodecDecoder)
    }
    return [kinds[name]()]
