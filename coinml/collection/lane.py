"""One source in a batch: its pace and breaker, and the videos that it is to be asked for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coinml.collection.copies import copy_video
from coinml.collection.download import (
    Fetched,
    FetchOptions,
    fetch,
    http_status,
    is_unreachable,
)
from coinml.collection.outcomes import SourcePausedError
from coinml.collection.pacing import Admission, Pacer
from coinml.collection.sources import Source
from coinml.faults.classification import Fault
from coinml.ledger import LedgerRow

_REFUSALS = 3
"""After this many refusals in a batch that answers others, a refusal concerns the video alone."""

_REFUSALS_403 = 2
"""The same for status 403, which more often concerns one file than the client."""

_FAILURES = 3
"""After this many failures in a row that are no answer, one of several sources counts as down."""


@dataclass(kw_only=True)
class Lane:
    """One source in a batch.

    Attributes:
        source: The source.
        pacer: Its rate limit and circuit breaker.
        options: How to download from it.
        alone: Whether it is the only source.
        queue: The videos that it is to be asked for.
        again: When this run may ask it again, by video, in seconds of `time.monotonic`.
        refusals: Number of its refusals in this batch, by video.
        failures: Number of failures in a row that were no answer about a video.
        paused: Why it is not asked any more in this batch.
    """

    source: Source
    pacer: Pacer
    options: FetchOptions
    alone: bool
    queue: deque[str] = field(default_factory=deque)
    again: dict[str, float] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    paused: SourcePausedError | None = None

    def fetch(
        self,
        row: LedgerRow,
        folder: Path,
        *,
        on_data: Callable[[], None],
        on_arrival: Callable[[], None],
    ) -> Fetched:
        """Download a video, or copy it from a folder or bucket; see `fetch` and `copy_video`."""
        if not self.source.is_web:
            return copy_video(
                row.video_id,
                self.source,
                folder,
                limits=self.options.limits(row.duration_s),
                on_data=on_data,
                on_arrival=on_arrival,
            )
        return fetch(
            row.video_id,
            self.source.url(row.video_id),
            folder,
            options=self.options,
            duration_s=row.duration_s,
            on_data=on_data,
            on_arrival=on_arrival,
        )

    def take_failure(
        self, video_id: str, err: Exception, fault: Fault, admission: Admission
    ) -> bool:
        """Report to the pacer what a failure says about the source.

        Returns:
            False when it says nothing about the video.
        """
        if fault is Fault.BLOCKED and not self._concerns_video_alone(video_id, err, admission):
            self.pacer.refused(
                admission,
                str(err),
                retry_after_s=getattr(err, "retry_after_s", None),
                suspicion=http_status(err) == 403,
            )
            return False
        if is_unreachable(err):
            self.failures += 1
            if self.failures > 1 or admission.kind == "probe":
                # The second failure in a row to connect: the source is down, not the video.
                self.pacer.refused(admission, str(err), unreachable=True)
                return False
        elif fault is Fault.TRANSIENT and not self.alone:
            self.failures += 1
        else:
            self.failures = 0
        if self.failures >= _FAILURES:
            # It hangs at each video, say: the other sources need not wait for that.
            self.pacer.refused(admission, str(err), unreachable=True)
        elif fault is Fault.TRANSIENT:
            # A broken connection does not tell whether the source refuses.
            self.pacer.undecided(admission)
        else:
            self.pacer.answered(admission)
        return True

    def _concerns_video_alone(self, video_id: str, err: Exception, admission: Admission) -> bool:
        """Whether a refusal concerns this video and not the client."""
        self.refusals[video_id] += 1
        forbidden = http_status(err) == 403
        if self.refusals[video_id] < (_REFUSALS_403 if forbidden else _REFUSALS):
            return False
        # "go" means that the source has answered another video since its last refusal. For the
        # last video of a batch there is no other, and its 403 must not pause the source.
        return admission.kind == "go" or (forbidden and not self.queue)
