"""How a video becomes the clips and tokens that an encoder sees."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a video becomes the clips and tokens that an encoder sees.

    Attributes:
        clips: Number of clips per video.
        frames: Number of frames per clip; None takes the checkpoint's own.
        stride: Distance between a clip's frames, in frames.
        keep_tokens: Share of the tokens that the model sees, above 0 and at most 1: the same
            places in every frame. Less is faster (a quarter of the tokens takes less than a
            quarter of the time) and another spec. VideoMAE only.
        keep_seed: Seed of the selection of places.
    """

    clips: int = 8
    frames: int | None = None
    stride: int = 4
    keep_tokens: float = 1.0
    keep_seed: int = 0


DEFAULT = Sampling()
