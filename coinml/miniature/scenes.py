"""Scenes of drawn videos: a surface, a tool, and the motions of the tool over time.

Lengths are in frame heights, with the origin at the frame's centre (x to the right, y downwards),
so a scene can be drawn at any size, and a square frame is the centre crop of a wider one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

SURFACES = ("stripes", "checks", "dots", "rings", "blotches", "zigzag")
TOOLS = ("disc", "bar", "cross", "ring", "triangle", "block")
MOTIONS = ("slide", "lift", "circle", "press", "dab", "rest")

FRAME_RATES = (24, 25, 30)

Colour = tuple[float, float, float]
"""Red, green and blue from 0 to 1."""

_LUMA = (0.299, 0.587, 0.114)

_HAZE_NOISE = 25.0
"""Noise that the densest haze adds, on the scale of 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texture:
    """A pattern in two colours.

    Attributes:
        pattern: One of `SURFACES`, or "plain".
        period: Length of one repeat.
        angle_rad: Rotation of the pattern, in radians.
        shift: Displacement along the pattern's two axes, in periods.
        colours: Colours of the low and the high parts of the pattern.
    """

    pattern: str
    period: float
    angle_rad: float
    shift: tuple[float, float]
    colours: tuple[Colour, Colour]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A flat shape in one colour.

    Attributes:
        shape: One of `TOOLS`.
        size: Half its extent.
        angle_rad: Rotation, in radians.
        colour: Its colour.
        home: Its resting position (x, y).
    """

    shape: str
    size: float
    angle_rad: float
    colour: Colour
    home: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionSegment:
    """A periodic motion of the tool during a time span.

    Attributes:
        motion: One of `MOTIONS`.
        start_s: Start of the span, in seconds.
        end_s: End of the span, in seconds.
        amplitude: Greatest distance of the tool from its home.
        period_s: Duration of one period, in seconds.
        phase: Phase at the start, from 0 to 1.
        direction: 1, or -1 for the mirrored motion.
    """

    motion: str
    start_s: float
    end_s: float
    amplitude: float
    period_s: float
    phase: float
    direction: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that is visible in one video.

    Attributes:
        surface: Texture of the plate, which the tool works on.
        background: Texture around the plate.
        plate_centre: Centre of the plate (x, y).
        plate_half: Half the width and half the height of the plate.
        plate_power: Exponent of the superellipse that bounds the plate: 2 is an ellipse, larger
            values approach a rectangle.
        tool: The tool.
        motions: The motions in order of time; the tool rests between them.
        noise: Standard deviation of the sensor noise, on the scale of 0 to 255.
        noise_seed: Seed of the noise.
    """

    surface: Texture
    background: Texture
    plate_centre: tuple[float, float]
    plate_half: tuple[float, float]
    plate_power: float
    tool: Tool
    motions: tuple[MotionSegment, ...]
    noise: float
    noise_seed: int


def random_scene(
    rng: np.random.Generator,
    *,
    surface: str,
    tool: str,
    motions: Sequence[MotionSegment],
) -> Scene:
    """A random scene with the given surface, tool and motions.

    Half of the backgrounds have the pattern of another surface, so that the patterns in a frame
    do not identify the surface.

    Args:
        rng: The only source of randomness.
        surface: One of `SURFACES`.
        tool: One of `TOOLS`.
        motions: The motions, as `random_motion` makes them.
    """
    middle = float(rng.uniform(0.3, 0.7))
    contrast = float(rng.uniform(0.28, 0.5))
    misleading = rng.random() < 0.5
    others = [name for name in SURFACES if name != surface]
    return Scene(
        surface=_random_texture(rng, surface, middle=middle, contrast=contrast),
        background=_random_texture(
            rng,
            str(rng.choice(others)) if misleading else "plain",
            middle=float(rng.uniform(0.15, 0.85)),
            contrast=float(rng.uniform(0.1, 0.28)),
        ),
        plate_centre=(float(rng.uniform(-0.06, 0.06)), float(rng.uniform(-0.04, 0.04))),
        plate_half=(float(rng.uniform(0.46, 0.6)), float(rng.uniform(0.4, 0.48))),
        plate_power=float(rng.choice([2.5, 4.0, 8.0])),
        tool=Tool(
            shape=tool,
            size=float(rng.uniform(0.17, 0.24)),
            angle_rad=math.radians(float(rng.uniform(-25.0, 25.0))),
            colour=_colour(rng, _tool_brightness(rng, middle, contrast)),
            home=(float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-0.08, 0.08))),
        ),
        motions=tuple(motions),
        noise=float(rng.uniform(1.0, 5.0)),
        noise_seed=int(rng.integers(2**31)),
    )


def faded(scene: Scene, share: float) -> Scene:
    """The scene in haze: its colours are moved towards grey, and the sensor's noise is larger.

    Args:
        scene: The scene.
        share: 0 leaves it as it is; at 1 only grey and noise are left.
    """

    def paler(texture: Texture) -> Texture:
        low, high = texture.colours
        return replace(texture, colours=(_paler(low, share), _paler(high, share)))

    return replace(
        scene,
        surface=paler(scene.surface),
        background=paler(scene.background),
        tool=replace(scene.tool, colour=_paler(scene.tool.colour, share)),
        noise=scene.noise + _HAZE_NOISE * share,
    )


def random_motion(
    rng: np.random.Generator, motion: str, *, start_s: float, end_s: float
) -> MotionSegment:
    """A motion with random speed, amplitude and direction."""
    return MotionSegment(
        motion=motion,
        start_s=start_s,
        end_s=end_s,
        amplitude=float(rng.uniform(0.18, 0.28)),
        period_s=float(rng.uniform(0.9, 1.8)),
        phase=float(rng.random()),
        direction=int(rng.choice([-1, 1])),
    )


def _random_texture(
    rng: np.random.Generator, pattern: str, *, middle: float, contrast: float
) -> Texture:
    sign = float(rng.choice([-1.0, 1.0]))
    return Texture(
        pattern=pattern,
        period=float(rng.uniform(0.13, 0.22)),
        angle_rad=float(rng.uniform(0.0, math.pi)),
        shift=(float(rng.random()), float(rng.random())),
        colours=(
            _colour(rng, middle - sign * contrast / 2),
            _colour(rng, middle + sign * contrast / 2),
        ),
    )


def _tool_brightness(rng: np.random.Generator, middle: float, contrast: float) -> float:
    """A random brightness with contrast to both colours of the surface."""
    distance = contrast / 2 + float(rng.uniform(0.18, 0.3))
    fitting = [level for level in (middle - distance, middle + distance) if 0.0 <= level <= 1.0]
    if not fitting:
        return 0.0 if middle >= 0.5 else 1.0
    return float(rng.choice(fitting))


def _colour(rng: np.random.Generator, brightness: float) -> Colour:
    """A random hue of the given brightness."""
    raw = rng.random(3)
    shifted = np.clip(raw * 0.8 + (brightness - 0.8 * float(raw @ _LUMA)), 0.0, 1.0)
    return (float(shifted[0]), float(shifted[1]), float(shifted[2]))


def _paler(colour: Colour, share: float) -> Colour:
    red, green, blue = (level + share * (0.5 - level) for level in colour)
    return (red, green, blue)
