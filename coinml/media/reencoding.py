"""Re-encoding a video through a lower resolution: down, through H.264, and back up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media.container import frames_of, open_video, probe
from coinml.media.open_file import VideoPath
from coinml.media.orientation import orientation_of
from coinml.media.timeline import count_timeline
from coinml.media.writing import write_video

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RECIPE = "h264 crf23 down area up bicubic crf10 1"
"""Identifies what `reencode` does to the pixels."""

_LOSSY_CRF, _FAITHFUL_CRF = 23, 10


def reencode(source: str | Path, target: str | Path, *, rows: int) -> Path:
    """Scale a video down, compress it, and scale it up again.

    The small version is compressed as by a video site (CRF 23); the final file loses little more
    (CRF 10). Frame times are kept, counted from the first frame; audio is dropped.

    Args:
        source: A video file.
        target: Path of the result; its extension chooses the container.
        rows: Shorter side of the small version, in pixels. A video that is no larger keeps its
            size and is compressed all the same.

    Raises:
        CorruptVideoError: The source does not decode.
        InvalidInputError: There is no such file, or fewer than two rows are asked for.
        LocalError: The target cannot be written.
    """
    if rows < 2:
        raise InvalidInputError(f"rows {rows}: at least 2 are needed")
    info = probe(source)
    full = _even(info.width), _even(info.height)
    shrink = min(1.0, rows / min(full))
    small = _even(full[0] * shrink), _even(full[1] * shrink)
    target = Path(target)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        between = Path(folder) / "small.mp4"
        _rewrite(source, between, small, "AREA", fps=info.fps, crf=_LOSSY_CRF)
        return _rewrite(between, target, full, "BICUBIC", fps=info.fps, crf=_FAITHFUL_CRF)


def _rewrite(
    source: str | Path,
    target: Path,
    size: tuple[int, int],
    interpolation: str,
    *,
    fps: float | None,
    crf: int,
) -> Path:
    times_s = count_timeline(source).times_s
    try:
        return write_video(
            target,
            _frames(source, size, interpolation),
            fps=fps or 25.0,
            crf=crf,
            times_s=(times_s - times_s[0]).tolist(),
        )
    except InvalidInputError as err:
        # The only invalid input possible here is a source without frames.
        raise CorruptVideoError(f"{Path(source).name}: no frame decodes") from err


def _frames(
    path: VideoPath, size: tuple[int, int], interpolation: str
) -> Iterator[NDArray[np.uint8]]:
    """Upright frames of a size."""
    import numpy as np

    with open_video(path) as (container, stream):
        for frame in frames_of(container, stream):
            orientation = orientation_of(frame)
            width, height = size[::-1] if orientation.exchanges_sides else size
            pixels = frame.reformat(
                width, height, "rgb24", interpolation=interpolation
            ).to_ndarray()
            upright = orientation.upright(pixels.astype(np.uint8, copy=False))
            yield np.ascontiguousarray(upright)


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)
