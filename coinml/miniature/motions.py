"""How a tool moves: time to place, size and presence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coinml.miniature.compositions import Scene, Stretch

Floats = NDArray[np.float64]

_PRESS_DEPTH = 0.4
_DAB_DUTY = 0.5


class Pose(NamedTuple):
    """Where the tool is, one value a moment.

    Attributes:
        x: Horizontal place of its centre, float64 [T], in picture heights.
        y: Vertical place of its centre, float64 [T], in picture heights.
        scale: Its size relative to the tool's own, float64 [T].
        shown: 1 where it is on the surface, 0 where it is lifted off, float64 [T].
    """

    x: Floats
    y: Floats
    scale: Floats
    shown: Floats


def pose(scene: Scene, times_s: Floats) -> Pose:
    """Place the scene's tool at the given moments.

    Args:
        scene: Its tool's home and its stretches count.
        times_s: Moments in seconds, float64 [T].
    """
    x, y = np.zeros_like(times_s), np.zeros_like(times_s)
    scale, shown = np.ones_like(times_s), np.ones_like(times_s)
    for stretch in scene.stretches:
        now = (times_s >= stretch.start_s) & (times_s < stretch.end_s)
        turn = stretch.phase + (times_s[now] - stretch.start_s) / stretch.period_s
        x[now], y[now] = _offset(stretch, 2 * np.pi * turn)
        if stretch.motion == "press":
            scale[now] = 1.0 + _PRESS_DEPTH * np.sin(2 * np.pi * turn)
        elif stretch.motion == "dab":
            shown[now] = (turn % 1.0) < _DAB_DUTY
    home_x, home_y = scene.tool.home
    return Pose(home_x + x, home_y + y, scale, shown)


def _offset(stretch: Stretch, angle: Floats) -> tuple[Floats, Floats]:
    """The way from home, [T] each."""
    along, across = stretch.amplitude * np.sin(angle), stretch.amplitude * np.cos(angle)
    nothing = np.zeros_like(angle)
    if stretch.motion == "slide":
        return along, nothing
    if stretch.motion == "lift":
        return nothing, along
    if stretch.motion == "circle":
        return stretch.direction * along, across
    return nothing, nothing
