"""How videos are collected: which are tried, and how they are downloaded."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from coinml.collection.download import MAX_HEIGHT, MAX_MB_PER_S, MAX_MINUTES
from coinml.collection.download_limits import SIZE_FLOOR_BYTES
from coinml.errors import InvalidInputError
from coinml.faults.classification import Fault


class DownloadOptions(BaseModel):
    """How videos are downloaded."""

    # A source that is refused for its password must not be in the message.
    model_config = ConfigDict(
        frozen=True, extra="forbid", title="Download", hide_input_in_errors=True
    )

    source: str | tuple[str, ...] | None = Field(
        default=None,
        description="URL template with {id}, or a folder or bucket of copies; of several (the "
        "option may be repeated), each video is tried at one after the other. By default YouTube, "
        "and for `mini` a local server.",
    )
    batch_size: int = Field(default=20, ge=1, description="Videos per download task.")
    max_wait_s: float = Field(
        default=60,
        ge=0,
        description="Wait out pauses of the source up to this many seconds; a longer one ends "
        "the run.",
    )
    max_height: int = Field(
        default=MAX_HEIGHT,
        ge=64,
        description="Maximum length of a video's shorter side in pixels: its height, or the width "
        "of an upright video.",
    )
    max_mb_per_s: float = Field(
        default=MAX_MB_PER_S,
        gt=0,
        allow_inf_nan=False,
        description="Maximum size of a file, in megabytes per second of its annotated length; "
        f"{SIZE_FLOOR_BYTES / 1e6:.0f} MB are allowed beside.",
    )
    max_minutes: float = Field(
        default=MAX_MINUTES,
        gt=0,
        allow_inf_nan=False,
        description="Maximum minutes of a download; ten times the annotated length is allowed "
        "beside.",
    )

    def limits(self) -> dict[str, Any]:
        """The fields that `FetchOptions` has too."""
        return self.model_dump(include={"max_height", "max_mb_per_s", "max_minutes"})

    @field_validator("source")
    @classmethod
    def _holds_no_password(cls, source: Any) -> Any:
        from coinml.collection.sources import check_recordable

        check_recordable([source] if isinstance(source, str) else source or ())
        return source

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources in their order; none: the default."""
        return (self.source,) if isinstance(self.source, str) else self.source or ()


class CollectOptions(DownloadOptions):
    """Which of a dataset's videos are downloaded, and how."""

    model_config = ConfigDict(title="Collection")

    budget: int | None = Field(
        default=None, ge=1, description="Try at most this many videos in this run."
    )
    only: tuple[str, ...] = Field(
        default=(), description="Only videos with these faults; `pending` names those never tried."
    )
    retry_now: bool = Field(
        default=False,
        description="Retry failed videos before their next scheduled attempt; `gone` ones only if "
        "`only` names them.",
    )
    reprobe: bool = Field(
        default=False, description="Retry `gone` videos before their next scheduled attempt."
    )

    @field_validator("only")
    @classmethod
    def _are_states(cls, only: tuple[str, ...]) -> tuple[str, ...]:
        from coinml.ledger.records import PENDING

        states = [PENDING, *Fault]
        unknown = sorted(set(only) - set(states))
        if unknown:
            raise InvalidInputError(f"only {', '.join(unknown)}: allowed are {', '.join(states)}")
        return only

    @property
    def ignoring_schedule(self) -> tuple[str, ...]:
        """States whose videos are tried now, even if their next attempt is scheduled later."""
        states = set(self.only or set(Fault) - {Fault.GONE}) if self.retry_now else set()
        return tuple(sorted(states | ({Fault.GONE} if self.reprobe else set())))
