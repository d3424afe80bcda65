"""Rendering scenes to frames."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from coinml.miniature.motions import Pose, pose
from coinml.miniature.scenes import Scene
from coinml.miniature.textures import paint
from coinml.miniature.tool_shapes import REACH, distance

Frames = NDArray[np.uint8]


def draw(scene: Scene, times_s: NDArray[np.float64], *, width: int, height: int) -> Frames:
    """Draw a scene at the given times.

    Args:
        scene: The scene.
        times_s: Times in seconds, float64 [T].
        width: Frame width in pixels; a narrower frame shows the middle of a wider one.
        height: Frame height in pixels.

    Returns:
        RGB frames, uint8 [T, height, width, 3].
    """
    still = _still(scene, width, height)
    frames = np.repeat(still[None], len(times_s), axis=0)
    _lay_tool(frames, scene, pose(scene, times_s))
    return _with_noise(frames, scene)


def _still(scene: Scene, width: int, height: int) -> NDArray[np.float32]:
    """The frame without the tool, 0 to 255, float32 [height, width, 3]."""
    x = np.asarray((np.arange(width) + 0.5 - width / 2) / height, np.float32)
    y = np.asarray((np.arange(height) + 0.5 - height / 2) / height, np.float32)
    grid_x, grid_y = np.meshgrid(x, y)
    off_x = np.abs(grid_x - scene.plate_centre[0]) / scene.plate_half[0]
    off_y = np.abs(grid_y - scene.plate_centre[1]) / scene.plate_half[1]
    level = (off_x**scene.plate_power + off_y**scene.plate_power) ** (1 / scene.plate_power)
    plate = np.clip(0.5 + (1 - level) * height * 0.4, 0, 1)[..., None]
    around = paint(scene.background, grid_x, grid_y)
    surface = paint(scene.surface, grid_x, grid_y)
    return np.asarray(255 * (around + plate * (surface - around)), np.float32)


def _lay_tool(frames: NDArray[np.float32], scene: Scene, place: Pose) -> None:
    """Blend the tool into frames of 0 to 255, in place; only its bounding box is computed."""
    _, height, width, _ = frames.shape
    tool = scene.tool
    half = math.ceil(REACH * tool.size * float(place.scale.max()) * height) + 1
    centre_x = place.x * height + width / 2 - 0.5
    centre_y = place.y * height + height / 2 - 0.5
    left, top = np.round(centre_x).astype(int) - half, np.round(centre_y).astype(int) - half
    steps = np.arange(2 * half + 1, dtype=np.float32)
    size = (tool.size * place.scale * height).astype(np.float32)[:, None]
    dx = ((left - centre_x).astype(np.float32)[:, None] + steps) / size
    dy = ((top - centre_y).astype(np.float32)[:, None] + steps) / size
    dx, dy = dx[:, None, :], dy[:, :, None]
    cos, sin = np.float32(np.cos(tool.angle_rad)), np.float32(np.sin(tool.angle_rad))
    outside = distance(tool.shape, cos * dx + sin * dy, cos * dy - sin * dx)
    cover = np.clip(0.5 - outside * size[:, :, None], 0, 1)
    colour = 255 * np.asarray(tool.colour, np.float32)
    for index in np.flatnonzero(place.shown):
        rows = slice(max(top[index], 0), min(top[index] + 2 * half + 1, height))
        columns = slice(max(left[index], 0), min(left[index] + 2 * half + 1, width))
        part = cover[
            index,
            rows.start - top[index] : rows.stop - top[index],
            columns.start - left[index] : columns.stop - left[index],
            None,
        ]
        window = frames[index, rows, columns]
        window += part * (colour - window)


def _with_noise(frames: NDArray[np.float32], scene: Scene) -> Frames:
    """Add sensor noise: one noise image, shifted randomly per frame."""
    count, height, width, _ = frames.shape
    rng = np.random.default_rng(scene.noise_seed)
    margin = 16
    shape = (height + margin, width + margin, 1)
    sheet = rng.standard_normal(shape, dtype=np.float32) * np.float32(scene.noise)
    for frame, (down, right) in zip(frames, rng.integers(margin, size=(count, 2)), strict=True):
        frame += sheet[down : down + height, right : right + width]
    np.clip(frames, 0, 255, out=frames)
    return frames.astype(np.uint8)
