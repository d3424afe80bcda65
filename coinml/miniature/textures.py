"""The patterns of surfaces."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from coinml.errors import InvalidInputError
from coinml.miniature.scenes import SURFACES, Texture

Floats = NDArray[np.float32]

_EDGE = 3.0
"""Steepness of the change from one colour to the other."""


def paint(texture: Texture, x: Floats, y: Floats) -> Floats:
    """The colours of a texture on a grid of points.

    Args:
        texture: The texture.
        x: Horizontal positions in frame heights, float32 [H, W].
        y: Vertical positions, likewise.

    Returns:
        Red, green and blue from 0 to 1, float32 [H, W, 3].
    """
    cos, sin = np.cos(texture.angle_rad), np.sin(texture.angle_rad)
    u = (cos * x + sin * y) / texture.period + texture.shift[0]
    v = (cos * y - sin * x) / texture.period + texture.shift[1]
    high = _pattern(texture.pattern, u.astype(np.float32), v.astype(np.float32))[..., None]
    low_colour, high_colour = (np.asarray(colour, np.float32) for colour in texture.colours)
    return low_colour + high * (high_colour - low_colour)


def _pattern(name: str, u: Floats, v: Floats) -> Floats:
    """Weight of the high colour at each point, 0 to 1."""
    tau = np.float32(2 * np.pi)
    if name == "plain":
        return np.full_like(u, 0.5)
    if name == "stripes":
        level = np.sin(tau * u)
    elif name == "checks":
        level = 1.6 * np.sin(tau * u / 2) * np.sin(tau * v / 2)
    elif name == "dots":
        level = 3.0 * (0.31 - np.hypot(u - np.round(u), v - np.round(v)))
    elif name == "rings":
        level = np.sin(tau * np.hypot(u, v))
    elif name == "zigzag":
        level = np.sin(tau * (u + np.abs(v / 2 - np.round(v / 2)) * 2.4))
    elif name == "blotches":
        level = _blotches(u, v)
    else:
        raise InvalidInputError(f"no surface {name!r}; there are {', '.join(SURFACES)}")
    return np.asarray(0.5 + 0.5 * np.tanh(_EDGE * level), np.float32)


def _blotches(u: Floats, v: Floats) -> Floats:
    """Waves in incommensurable directions, so that the pattern does not repeat."""
    turns = np.float32(2 * np.pi * 0.618) * np.arange(5, dtype=np.float32)
    waves = [
        np.sin(np.float32(1.7 + 0.6 * i) * (np.cos(turn) * u + np.sin(turn) * v) * 2.0 + 5.0 * i)
        for i, turn in enumerate(turns)
    ]
    return np.asarray(np.sum(waves, axis=0) * 0.6, np.float32)
