"""The reports of a collector, and the errors that carry one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from coinml.errors import SourceBlockedError, TransientError
from coinml.faults.classification import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOutcome:
    """The outcome of one video in a batch.

    Attributes:
        video_id: The video.
        state: "downloaded" or the name of a fault.
        message: The failure's message.
        path: Path of the file.
        size_bytes: Size of the file.
        seconds: Time taken, without waiting for the rate limit.
        fetched: False when the file was on disk already.
        settled: False when the same run may try the video again.
    """

    video_id: str
    state: str
    message: str | None = None
    path: str | None = None
    size_bytes: int | None = None
    seconds: float = 0.0
    fetched: bool = True
    settled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """The outcome of a batch; each id is in exactly one of the first five fields.

    Attributes:
        downloaded: Downloaded and recorded by this call.
        faults: Failed in this call and left to a later run: id -> fault.
        again: Failed in this call and may be tried again in this run.
        untried: Not tried, because the source is paused.
        skipped: Downloaded before, not due, or leased by another collector.
        waited_s: Seconds spent waiting for pauses of the source.
    """

    downloaded: tuple[str, ...] = ()
    faults: Mapping[str, Fault] = field(default_factory=dict)
    again: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    waited_s: float = 0.0


class BatchUnfinishedError(TransientError):
    """Some videos of a batch failed and may be tried again in this run.

    Attributes:
        report: The outcome of the batch so far.
        delay_s: Seconds to wait before calling again.
    """

    def __init__(
        self, message: str, *, report: BatchReport | None = None, delay_s: float = 1.0
    ) -> None:
        super().__init__(message)
        self.report = report or BatchReport()
        self.delay_s = delay_s


class SourcePausedError(SourceBlockedError):
    """The source is paused for longer than this run may wait.

    Attributes:
        report: The outcome of the batch so far.
        blocked_until: When the pause ends.
    """

    def __init__(
        self,
        message: str,
        *,
        report: BatchReport | None = None,
        blocked_until: datetime | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.report = report or BatchReport()
        self.blocked_until = blocked_until
