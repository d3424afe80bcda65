"""How an encoder is pre-trained."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coinml.errors import InvalidInputError
from coinml.pretraining.masking import MaskKind


class PretrainOptions(BaseModel):
    """Which encoder is pre-trained, with which masks, for how long, and where it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Pre-training")

    encoder: str | None = Field(
        default=None,
        description="Hub id or folder of the VideoMAE that training continues from, or `tiny`; by "
        "default VideoMAE-base, and for `mini` the tiny one.",
    )
    revision: str | None = Field(default=None, description="Revision of the hub id.")
    from_scratch: bool = Field(
        default=False, description="Begin with random weights, in the shape of the encoder."
    )
    out: str | None = Field(
        default=None,
        description="Folder of the checkpoints; by default `data/pretrained/<dataset>` in the "
        "home. A run that was stopped continues from the newest.",
    )
    masking: MaskKind = Field(
        default="tube",
        description="What is masked: the same positions in every frame (`tube`), `random` ones, or "
        "whole frames (`frame`).",
    )
    mask_ratio: float = Field(
        default=0.9, gt=0, lt=1, description="Share of the tokens that is masked."
    )
    steps: int = Field(default=1000, ge=1, description="Number of optimiser steps.")
    batch_clips: int = Field(default=32, ge=1, description="Clips per step.")
    crops: int = Field(
        default=4,
        ge=1,
        description="Clips of a step that are crops of the same decoded clip, each with its own "
        "mask.",
    )
    accumulate: int = Field(
        default=1, ge=1, description="Parts that a step's clips are computed in, to save memory."
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Compute activations twice instead of keeping them, to save memory.",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="`auto` is bfloat16 where the device has instructions for it, else float32. "
        "Weights are in float32.",
    )
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate; by default 1.5e-4 times clips per step / 256.",
    )
    warmup: float = Field(
        default=0.05, ge=0, lt=1, description="Share of the steps in which the rate rises."
    )
    weight_decay: float = Field(default=0.05, ge=0, description="Weight decay of matrices.")
    stride: int = Field(
        default=4,
        ge=1,
        description="Distance between consecutive frames of a clip, in video frames.",
    )
    checkpoint_steps: int = Field(default=500, ge=1, description="Steps between checkpoints.")
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="Seed of everything random in training."
    )

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if self.batch_clips % self.crops:
            raise InvalidInputError(
                f"--batch-clips {self.batch_clips}: must be a multiple of --crops, which is "
                f"{self.crops}"
            )
        if self.accumulate > self.batch_clips:
            raise InvalidInputError(
                f"--accumulate {self.accumulate}: must be at most --batch-clips, which is "
                f"{self.batch_clips}"
            )
        return self

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up."""
        return self.lr if self.lr is not None else _BASE_LR * self.batch_clips / _BASE_BATCH

    def decisive(self) -> dict[str, object]:
        """The options that decide the trained weights, which a resumed run must share."""
        others = {"encoder", "revision", "out", "checkpoint_steps"}
        return self.model_dump(exclude=others)


_BASE_LR, _BASE_BATCH = 1.5e-4, 256
"""The learning rate of VideoMAE's authors for a batch of this size; it grows with the batch."""
