"""Which heads are trained, on which classes, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from coinml.data.records import Target
from coinml.data.targets import target_of
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.heads.kinds import DEFAULT_HEADS, HEADS, check_heads
from coinml.training.head_options import parse_head_options


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
    head_options: str | tuple[str, ...] | None = Field(
        default=None,
        description="An option of a head, as `mlp.class_weights=balanced`; may be given several "
        "times. Sweeps leave it as it is and try the others.",
    )
    cv: int | None = Field(
        default=None,
        ge=0,
        description="Folds of a cross-validation beside the fixed split, 0 for none. By default 5 "
        "for class folders whose test side has fewer than 100 videos (or groups), fewer where "
        "there are not as many groups, and none with fewer than 3.",
    )
    cv_repeats: int = Field(
        default=3, ge=1, description="Number of times that a cross-validation cuts the folds."
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, description="Seed of everything random in training."
    )
    drop_leaks: bool = Field(
        default=False,
        description="Train without videos that are in val or test as well, under any id.",
    )
    by_reference: bool = Field(
        default=False,
        description="The registered model names its encoder on the hub; no copy of it is stored.",
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

    @model_validator(mode="after")
    def _are_head_options(self) -> TrainOptions:
        parse_head_options(self._texts(), self.heads)
        return self

    def options_of(self, head: str) -> Mapping[str, Any]:
        """The options that are set by hand for this head; empty if there are none."""
        return parse_head_options(self._texts(), self.heads).get(head, {})

    def _texts(self) -> tuple[str, ...]:
        given = self.head_options or ()
        return (given,) if isinstance(given, str) else given

    def target_for(self, set_options: SetOptions) -> Target:
        """The target, or where none is named the one that is trained on the set's extent."""
        return target_of(self.target, set_options.extent)
