"""What a collector reports about its videos, and how it says that it did not get to the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from coinml.errors import SourceBlockedError, TransientError
from coinml.faults.classification import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOutcome:
    """What a batch did about one video.

    Attributes:
        video_id: The video.
        state: "downloaded" or the name of a fault.
        message: The words of the failure.
        path: Where the file is.
        size_bytes: Its size.
        seconds: How long it took, waiting for the source's pace left out.
        fetched: False when the file was found to be here already.
        settled: False when the same run may try it again.
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
    """What became of the ids of a batch; each id is in exactly one of the five.

    Attributes:
        downloaded: Here now, through this call.
        faults: Failed in this call and left to a later run: id -> fault.
        again: Failed in this call and may be tried again in this run.
        untried: Not asked for, because the source is paused.
        skipped: Nothing to do: here already, not due, or in another collector's hands.
        waited_s: Seconds spent on pauses of the source.
    """

    downloaded: tuple[str, ...] = ()
    faults: Mapping[str, Fault] = field(default_factory=dict)
    again: tuple[str, ...] = ()
    untried: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    waited_s: float = 0.0


class BatchUnfinishedError(TransientError):
    """Some videos of a batch failed in a way that may pass: call again in a moment.

    Attributes:
        report: What became of all of them.
        delay_s: When to call again, in seconds from now.
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
        report: What became of the batch until then.
        blocked_until: When to come back.
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
