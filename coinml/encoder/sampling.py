"""How a video becomes the clips and tokens that an encoder sees."""

from __future__ import annotations

from dataclasses import dataclass

FLOAT, INT8 = "float", "int8"
PRECISIONS = (FLOAT, INT8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How a video becomes the clips and tokens that an encoder sees.

    Attributes:
        clips: Number of clips per video.
        frames: Number of frames per clip; None takes the checkpoint's own.
        stride: Distance between a clip's frames, in frames.
        keep_tokens: Share of the tokens that the model sees, above 0 and at most 1: the same
            positions in every frame. A smaller share is faster (a quarter of the tokens takes
            less than a quarter of the time) and gives other vectors. VideoMAE only.
        keep_seed: Seed of the selection of positions.
        precision: "float": float32 or a half type that agrees with it; "int8": quantized, which is
            faster on most CPUs and gives other vectors.
    """

    clips: int = 8
    frames: int | None = None
    stride: int = 4
    keep_tokens: float = 1.0
    keep_seed: int = 0
    precision: str = FLOAT


DEFAULT = Sampling()
