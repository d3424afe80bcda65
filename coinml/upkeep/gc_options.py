"""What `coinml gc` keeps."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GcOptions(BaseModel):
    """What is kept, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep: int = Field(
        default=10,
        ge=1,
        description="Number of runs of each kind that stay, of heads and sweeps for each head, of "
        "studies for each study; with versions that have an alias or were not judged.",
    )
    min_age_days: float = Field(
        default=1.0, ge=0, description="What is younger than this stays, in days."
    )
    log_mb: float = Field(
        default=20.0,
        gt=0,
        description="A log that is larger begins anew; what it had until then stays as `.1`.",
    )
