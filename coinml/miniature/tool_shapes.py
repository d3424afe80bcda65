"""The shapes of tools, as signed distance functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coinml.errors import InvalidInputError
from coinml.miniature.scenes import TOOLS

Floats = NDArray[np.float32]

REACH = 1.15
"""Upper limit of a shape's extent from its centre, in units of its size."""


def distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Distance of points to the outline of a shape of size 1; negative inside.

    Args:
        shape: One of `TOOLS`.
        x: Positions to the right of its centre, float32, any shape.
        y: Positions below its centre, float32, same shape.
    """
    if shape == "disc":
        return np.hypot(x, y) - np.float32(0.85)
    if shape == "ring":
        return np.abs(np.hypot(x, y) - np.float32(0.78)) - np.float32(0.24)
    if shape == "bar":
        return _box(x, y, 1.1, 0.32)
    if shape == "block":
        return _box(x, y, 0.78, 0.78)
    if shape == "cross":
        return np.minimum(_box(x, y, 1.05, 0.27), _box(x, y, 0.27, 1.05))
    if shape == "triangle":
        slope = np.float32(np.sqrt(3) / 2)
        sides = np.maximum(np.maximum(y, slope * x - y / 2), -slope * x - y / 2)
        return sides - np.float32(0.56)
    raise InvalidInputError(f"no tool {shape!r}; there are {', '.join(TOOLS)}")


def _box(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))
