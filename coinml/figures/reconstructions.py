"""What a pre-trained model rebuilds of masked clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from coinml.figures.style import new_figure

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = ("input", "masked", "rebuilt")
_FRAMES = 4
"""Frames of a clip that are shown."""


def reconstructions(frames: NDArray[np.uint8], *, step: int) -> Figure:
    """Rows of film strips: of each clip the input, what the model sees, and what it rebuilds.

    Args:
        frames: uint8 (clips, 3, T, height, width, 3).
        step: The training step of the model.
    """
    shown = np.linspace(0, frames.shape[2] - 1, _FRAMES).round().astype(int)
    rows = [(clip, kind) for clip in frames for kind in range(len(_KINDS))]
    figure, axes = new_figure(5, 0.5 + 1.1 * len(rows), len(rows), 1, f"Step {step:,}")
    for axis, (clip, kind) in zip(axes, rows, strict=True):
        axis.imshow(np.concatenate(clip[kind, shown], axis=1))
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.set_ylabel(_KINDS[kind], fontsize=8)
    return figure
