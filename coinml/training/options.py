"""Which heads are trained, on which classes, and how."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from coinml.data.records import Target
from coinml.data.targets import target_of
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.heads.kinds import DEFAULT_HEADS, HEADS, check_heads


class TrainOptions(BaseModel):
    """Which heads are trained, on which classes, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Training")

    heads: tuple[str, ...] = Field(
        default=DEFAULT_HEADS,
        description=f"Heads to train, of {', '.join(f'`{name}`' for name in HEADS)}.",
    )
    target: Target | None = Field(
        default=None,
        description="Classes to predict: `task`, `domain` or `step`; by default `step` for the "
        "extent `segments`, else `task`.",
    )
    sweep: int = Field(
        default=0,
        ge=0,
        description="First try this many hyperparameter settings of each head on val, and train "
        "with the best.",
    )
    cv: int | None = Field(
        default=None,
        ge=0,
        description="Folds of a cross-validation beside the fixed split, 0 for none. By default 5 "
        "for class folders whose test side has fewer than 100 videos (or groups).",
    )
    cv_repeats: int = Field(
        default=3, ge=1, description="Number of times that a cross-validation cuts the folds."
    )
    seed: int = Field(default=0, description="Seed of everything random in training.")
    drop_leaks: bool = Field(
        default=False,
        description="Train without videos that are in val or test as well, under any id.",
    )
    by_reference: bool = Field(
        default=False,
        description="The registered model names its encoder on the hub instead of containing it.",
    )

    @field_validator("heads")
    @classmethod
    def _are_heads(cls, heads: tuple[str, ...]) -> tuple[str, ...]:
        check_heads(heads)
        return heads

    @field_validator("cv")
    @classmethod
    def _are_folds(cls, cv: int | None) -> int | None:
        if cv == 1:
            raise InvalidInputError("cv 1: two folds or more are allowed, or 0 for none")
        return cv

    def target_for(self, set_options: SetOptions) -> Target:
        """The target, or where none is named the one that is trained on the set's extent."""
        return target_of(self.target, set_options.extent)
