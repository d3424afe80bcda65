"""What is scored, and how it is compared."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ScoreOptions(BaseModel):
    """Which files are scored, and how they are compared with the training set."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Scoring")

    folder: str | None = Field(
        default=None,
        description="Folder or fsspec URL (such as `s3://BUCKET/NEW`) of the new videos; by "
        "default `data/incoming/DATASET` of the home.",
    )
    labels: str | None = Field(
        default=None,
        description="CSV file with the columns `path,label` and perhaps `group`: true classes of "
        "scored videos, from which accuracy is measured.",
    )
    settle_s: float = Field(
        default=60.0,
        ge=0,
        description="Seconds for which a file must not have changed before it is read.",
    )
    window: int = Field(
        default=100,
        ge=20,
        description="Scored videos that are compared with the training set at a time.",
    )
    looks: int = Field(
        default=50,
        ge=1,
        description="Number of windows among which a false alarm has a probability of 5 % at most.",
    )
