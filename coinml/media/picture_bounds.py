"""Which sizes of pictures are decoded: a file of a kilobyte can state any."""

from __future__ import annotations

import math

from coinml.errors import CorruptVideoError

MAX_PIXELS = 8192 * 8192
"""Pixels of a picture; a panorama in 8K for both eyes has fewer."""
MAX_ASPECT = 20
"""Longer side by shorter side."""
LARGEST_SHORT_SIDE = 1080
"""Larger frames are scaled down when decoded: 128 frames of an 8K file are 12 GB."""
_LARGEST_PIXELS = 4 * LARGEST_SHORT_SIDE**2
"""Pixels that are kept of a frame; pictures of up to 4:1 have fewer."""


def check_size(width: int, height: int, name: str) -> None:
    """Refuse pictures that would take much memory, or be a thin line when they are resized.

    Raises:
        CorruptVideoError: They are too large or too long.
    """
    if width * height > MAX_PIXELS:
        raise CorruptVideoError(
            f"{name}: pictures of {width}x{height}; at most {MAX_PIXELS:,} pixels are decoded"
        )
    if max(width, height) > MAX_ASPECT * min(width, height) > 0:
        raise CorruptVideoError(
            f"{name}: pictures of {width}x{height}; sides of at most {MAX_ASPECT}:1 are decoded"
        )


def kept_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of the frames that are kept of pictures of this size."""
    shrink = min(1.0, LARGEST_SHORT_SIDE / min(width, height))
    if shrink * shrink * width * height > _LARGEST_PIXELS:
        shrink = math.sqrt(_LARGEST_PIXELS / (width * height))
    return round(width * shrink), round(height * shrink)
