"""The motion of a tool: position, size and visibility over time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from coinml.miniature.scenes import MotionSegment, Scene

Floats = NDArray[np.float64]

_PRESS_DEPTH = 0.4
_DAB_DUTY = 0.5


class Pose(NamedTuple):
    """Position and size of the tool at each time.

    Attributes:
        x: Horizontal position of its centre, float64 [T], in frame heights.
        y: Vertical position of its centre, float64 [T], in frame heights.
        scale: Size relative to the tool's own, float64 [T].
        shown: 1 where visible, 0 where lifted off the surface, float64 [T].
    """

    x: Floats
    y: Floats
    scale: Floats
    shown: Floats


def pose(scene: Scene, times_s: Floats) -> Pose:
    """The pose of a scene's tool at the given times.

    Args:
        scene: The scene.
        times_s: Times in seconds, float64 [T].
    """
    x, y = np.zeros_like(times_s), np.zeros_like(times_s)
    scale, shown = np.ones_like(times_s), np.ones_like(times_s)
    for segment in scene.motions:
        now = (times_s >= segment.start_s) & (times_s < segment.end_s)
        turn = segment.phase + (times_s[now] - segment.start_s) / segment.period_s
        x[now], y[now] = _offset(segment, 2 * np.pi * turn)
        if segment.motion == "press":
            scale[now] = 1.0 + _PRESS_DEPTH * np.sin(2 * np.pi * turn)
        elif segment.motion == "dab":
            shown[now] = (turn % 1.0) < _DAB_DUTY
    home_x, home_y = scene.tool.home
    return Pose(home_x + x, home_y + y, scale, shown)


def _offset(segment: MotionSegment, angle: Floats) -> tuple[Floats, Floats]:
    """Horizontal and vertical distance from home, [T] each."""
    along, across = segment.amplitude * np.sin(angle), segment.amplitude * np.cos(angle)
    nothing = np.zeros_like(angle)
    if segment.motion == "slide":
        return along, nothing
    if segment.motion == "lift":
        return nothing, along
    if segment.motion == "circle":
        return segment.direction * along, across
    return nothing, nothing
