"""What a study compares, with which heads, and how often each is trained."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from coinml.data.records import Target
from coinml.errors import InvalidInputError
from coinml.heads.kinds import HEADS, check_heads, head_kind
from coinml.studies.plans import check_target

DEFAULT_SEEDS = {"data": 5}
OTHER_SEEDS = 3


class StudyOptions(BaseModel):
    """What a study compares, with which heads, and how often each is trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Study")

    conditions: tuple[str, ...] = Field(
        default=(),
        description="What to compare: per cent of the training videos (`data`), picture height "
        "(`resolution`), share of the tokens (`tokens`), numbers (`clips`, `dims`); by default "
        "the study's own.",
    )
    heads: tuple[str, ...] = Field(
        default=("svm",),
        description=f"Heads to train, of {', '.join(f'`{name}`' for name in HEADS)}.",
    )
    target: Target = Field(default="task", description="Classes to predict: `task` or `domain`.")
    seeds: int | None = Field(
        default=None,
        ge=1,
        description=f"Trainings of each head that draws random numbers; by default {OTHER_SEEDS}, "
        f"in `data` {DEFAULT_SEEDS['data']} of every head.",
    )
    timed: int = Field(
        default=16,
        ge=0,
        description="Videos on which the cost of embedding is measured; 0 measures none.",
    )
    at: int | None = Field(
        default=None,
        ge=1,
        description="In `data`, also predict the error at this number of training videos.",
    )

    @field_validator("heads")
    @classmethod
    def _are_heads(cls, heads: tuple[str, ...]) -> tuple[str, ...]:
        check_heads(heads)
        return heads

    @field_validator("target")
    @classmethod
    def _is_target_of_studies(cls, target: Target) -> Target:
        check_target(target)
        return target

    def check_for(self, study: str) -> None:
        """Check that a study can train these heads.

        Raises:
            InvalidInputError: `dims` projects the means of clips, and a head takes single clips.
        """
        takes_clips = [head for head in self.heads if head_kind(head).takes_clips]
        if study == "dims" and takes_clips:
            raise InvalidInputError(
                f"study dims: {', '.join(takes_clips)} takes clips, but only the clips' means are "
                "projected"
            )

    def seeds_of(self, study: str) -> int:
        """Number of trainings of each head."""
        return self.seeds or DEFAULT_SEEDS.get(study, OTHER_SEEDS)
