"""Film strips: a few small frames of a video side by side, as one JPEG."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinml.errors import CoinmlError
from coinml.media.decode_pool import DecodePool
from coinml.media.records import ClipSpec, SampledClips
from coinml.runtime.cpus import cpu_count

FRAMES = 3
HEIGHT = 72
_QUALITY = 60
_STILL = 2.0
"""Mean difference of two frames, of 255, below which they show no change: noise of coding."""

_BLACK = 32
"""Brightness, of 255, that 99 % of the pixels of a black frame are below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmStrip:
    """Frames of a video from its beginning, middle and end.

    Attributes:
        jpeg: The frames side by side; empty if the file cannot be read.
        still: Whether nothing changes from frame to frame.
        black: Whether all frames are nearly black.
    """

    jpeg: bytes = b""
    still: bool = False
    black: bool = False


def film_strips(
    paths: Mapping[str, str],
    *,
    spans: Mapping[str, tuple[float | None, float | None]] | None = None,
    height: int = HEIGHT,
    deadline_s: float = 30,
    tick: Callable[[], None] | None = None,
) -> Iterator[tuple[str, FilmStrip]]:
    """The film strip of each video, in the order of `paths`; a file that fails has no picture.

    Args:
        paths: File of each video (or segment), by id.
        spans: Part of each file in seconds, by id; by default the whole file.
        height: Height of the strip in pixels.
        deadline_s: Seconds that a file may take.
        tick: Called after each video.
    """
    spec = ClipSpec(clips=FRAMES, frames=1, stride=1)
    workers = cpu_count()
    with DecodePool(workers=max(1, workers)) as pool:
        ahead: deque[tuple[str, Future[SampledClips]]] = deque()
        for name, path in paths.items():
            start_s, end_s = (spans or {}).get(name, (None, None))
            ahead.append(
                (
                    name,
                    pool.submit_sample(
                        path, spec, start_s=start_s, end_s=end_s, deadline_s=deadline_s
                    ),
                )
            )
            # Only a few ahead: the frames come in the size of the video.
            if len(ahead) > 2 * workers:
                yield _next(ahead, height, tick)
        while ahead:
            yield _next(ahead, height, tick)


def _next(
    ahead: deque[tuple[str, Future[SampledClips]]],
    height: int,
    tick: Callable[[], None] | None,
) -> tuple[str, FilmStrip]:
    name, future = ahead.popleft()
    try:
        frames = future.result().frames[:, 0]
        strip = FilmStrip(jpeg=_jpeg(frames, height), still=_still(frames), black=_black(frames))
    except CoinmlError:
        # The audit and the report are about the others, too.
        strip = FilmStrip()
    if tick is not None:
        tick()
    return name, strip


def _jpeg(frames: npt.NDArray[np.uint8], height: int) -> bytes:
    from PIL import Image

    width = min(round(height * frames.shape[2] / frames.shape[1]), 2 * height)
    strip = Image.new("RGB", (len(frames) * width, height))
    for place, frame in enumerate(frames):
        strip.paste(Image.fromarray(frame).resize((width, height)), (place * width, 0))
    content = io.BytesIO()
    strip.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return content.getvalue()


def _still(frames: npt.NDArray[np.uint8]) -> bool:
    differences = np.abs(np.diff(frames.astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    return bool(differences.max() < _STILL)


def _black(frames: npt.NDArray[np.uint8]) -> bool:
    return bool(np.percentile(frames.max(axis=-1), 99) < _BLACK)
