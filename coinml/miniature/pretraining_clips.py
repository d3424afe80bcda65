"""Random clips for pretraining, never with a combination that one of the six tasks shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coinml.miniature.drawing import draw
from coinml.miniature.motions import pose
from coinml.miniature.scenes import (
    FRAME_RATES,
    MOTIONS,
    SURFACES,
    TOOLS,
    random_motion,
    random_scene,
)
from coinml.miniature.tasks import TRIPLES

FRAMES = 16
STRIDE = 4
DRAWN_SIZE = 96
"""Clips are drawn at the height of the miniature's videos, then resized for the model."""

_EDGE = 0.04
"""A token touches the tool if its centre is nearer to it than this, in frame heights."""

_CLIP_SEEDS = 0x434C4950
"""Makes the seeds differ from those of the miniature's videos."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipBatch:
    """Drawn clips and their labels.

    Attributes:
        frames: uint8 (N, FRAMES, DRAWN_SIZE, DRAWN_SIZE, 3).
        labels: int64 (N, 3): index of the surface, the tool and the motion.
        touched: bool (N, tokens): whether the tool touches a token, in the model's order of tokens
            (tubelet, row, column).
    """

    frames: NDArray[np.uint8]
    labels: NDArray[np.int64]
    touched: NDArray[np.bool_]


def draw_clips(seed: int, number: int, count: int, *, tubelet: int, grid: int) -> ClipBatch:
    """Draw one batch; the same seed and number give the same clips.

    Args:
        seed: Seed of the sequence of batches.
        number: Number of the batch in the sequence.
        count: Clips per batch.
        tubelet: Frames per token.
        grid: Tokens per row and per column.
    """
    rng = np.random.default_rng([_CLIP_SEEDS, seed, number])
    drawn = [_clip(rng, tubelet=tubelet, grid=grid) for _ in range(count)]
    frames, labels, touched = zip(*drawn, strict=True)
    return ClipBatch(
        frames=np.stack(frames), labels=np.array(labels, np.int64), touched=np.stack(touched)
    )


def random_triple(rng: np.random.Generator) -> tuple[str, str, str]:
    """A surface, a tool and a motion that no task of the miniature combines."""
    while True:
        triple = (str(rng.choice(SURFACES)), str(rng.choice(TOOLS)), str(rng.choice(MOTIONS)))
        if triple not in TRIPLES:
            return triple


def _clip(
    rng: np.random.Generator, *, tubelet: int, grid: int
) -> tuple[NDArray[np.uint8], tuple[int, int, int], NDArray[np.bool_]]:
    surface, tool, motion = random_triple(rng)
    times_s = float(rng.uniform(0, 2)) + np.arange(FRAMES) * STRIDE / int(rng.choice(FRAME_RATES))
    segment = random_motion(rng, motion, start_s=0.0, end_s=60.0)
    scene = random_scene(rng, surface=surface, tool=tool, motions=[segment])
    frames = draw(scene, times_s, width=DRAWN_SIZE, height=DRAWN_SIZE)
    place = pose(scene, times_s)
    middles = (np.arange(grid) + 0.5) / grid - 0.5
    across, down = np.meshgrid(middles, middles)
    reach = scene.tool.size * place.scale + _EDGE
    near = (
        np.hypot(across - place.x[:, None, None], down - place.y[:, None, None])
        < reach[:, None, None]
    )
    near &= (place.shown > 0)[:, None, None]
    touched = near.reshape(FRAMES // tubelet, tubelet, grid, grid).any(axis=1).reshape(-1)
    labels = (SURFACES.index(surface), TOOLS.index(tool), MOTIONS.index(motion))
    return frames, labels, touched
