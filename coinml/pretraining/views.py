"""What is drawn at random for each decoded clip, as a function of seed, epoch and position.

Nothing else decides what a step sees, so that a resumed run sees what the undisturbed one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from coinml.pretraining.masking import Masking

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_ORDER, _VIEWS, _FIXED, _STEP = range(1, 5)
"""Tell apart the random numbers of one seed."""

_SCALES = (1.0, 0.875, 0.75, 0.66)
"""Sides of a crop by the shorter side of the frame. Source: VideoMAE's multi-scale crop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crop:
    """A part of a frame.

    Attributes:
        height: By the shorter side of the frame.
        width: Likewise.
        top: Place of the upper edge, from 0 to 1 of the room that there is.
        left: Place of the left edge, likewise.
    """

    height: float
    width: float
    top: float
    left: float

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of a frame of this size in pixels."""
        short = min(height, width)
        rows, columns = max(1, round(short * self.height)), max(1, round(short * self.width))
        top, left = round((height - rows) * self.top), round((width - columns) * self.left)
        return slice(top, top + rows), slice(left, left + columns)


WHOLE = Crop(height=1.0, width=1.0, top=0.5, left=0.5)
"""The largest square in the middle."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Views:
    """What is seen of one video in one epoch.

    Attributes:
        place: Where the clip begins: from 0 (with the video) to 1 (as late as it fits).
        crops: The parts of its frames that are seen.
        masks: bool (crops, tokens): a mask for each crop.
    """

    place: float
    crops: tuple[Crop, ...]
    masks: NDArray[np.bool_]


def draw_order(videos: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the videos in an epoch: int64 (videos,)."""
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(videos)


def draw_views(masking: Masking, *, crops: int, seed: int, epoch: int, position: int) -> Views:
    """What is seen of the video at a position of an epoch's order."""
    # Trailing zeros do not change a sequence of seeds, so the last number is not 0.
    rng = np.random.default_rng([seed, epoch, position, _VIEWS])
    return Views(
        place=float(rng.random()),
        crops=tuple(_draw_crop(rng) for _ in range(crops)),
        masks=np.stack([masking.draw(rng) for _ in range(crops)]),
    )


def fixed_views(masking: Masking, *, seed: int, position: int) -> Views:
    """The middle of a video with a mask that is the same at all steps, for pictures."""
    rng = np.random.default_rng([seed, position, _FIXED])
    return Views(place=0.5, crops=(WHOLE,), masks=masking.draw(rng)[None])


def step_seed(seed: int, step: int) -> int:
    """Seed of what a model draws in a step, such as dropout."""
    return int(np.random.SeedSequence([seed, step, _STEP]).generate_state(1)[0])


def cut(frames: NDArray[np.uint8], views: Views, size: tuple[int, int]) -> torch.Tensor:
    """The crops of a clip, resized to the model's input.

    Args:
        frames: uint8 (T, height, width, 3).
        views: What is seen of it.
        size: (height, width) of the input in pixels.

    Returns:
        uint8 (crops, T, 3, height, width).
    """
    import torch
    from torch.nn.functional import interpolate

    images = torch.tensor(frames).permute(0, 3, 1, 2)
    height, width = images.shape[2:]
    return torch.stack(
        [
            interpolate(
                images[:, :, rows, columns],
                size=size,
                mode="bilinear",
                antialias=True,
                align_corners=False,
            )
            for rows, columns in (crop.box(height, width) for crop in views.crops)
        ]
    )


def _draw_crop(rng: np.random.Generator) -> Crop:
    """Sides of two scales that are equal or next to each other, anywhere in the frame."""
    first = int(rng.integers(len(_SCALES)))
    second = int(np.clip(first + rng.integers(-1, 2), 0, len(_SCALES) - 1))
    top, left = rng.random(2).tolist()
    return Crop(height=_SCALES[first], width=_SCALES[second], top=top, left=left)
