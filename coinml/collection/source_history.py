"""What each source of a list has said about videos, and which of them is to be asked now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from coinml.collection.sources import Source
from coinml.faults.classification import POLICY, Fault, Policy, policy_of
from coinml.ledger import (
    DOWNLOADED,
    PENDING,
    AttemptRow,
    Ledger,
    LedgerRow,
    Overall,
    downloader_version,
)
from coinml.ledger.schema import CLOCK_SLACK_S


class SourceHistory:
    """The attempts at some videos, by source.

    With one source, the ledger's rows say what is due, whatever the source was called when it was
    asked. With several, each one's last attempt at a video says whether it is asked again, and one
    that was never asked for a video is asked. Attempts made before sources were recorded count for
    the first of the list.

    Args:
        ledger: Contains the videos.
        dataset: Name of the dataset.
        sources: In the order in which they are asked.
        rows: The videos.
        run_id: The run, which asks a source for a video as often as the fault's policy allows.
        credentials: Digest of the cookies and the proxy in use.
        retry_now: True: ask again before it is due; or only after these faults.
    """

    def __init__(
        self,
        ledger: Ledger,
        dataset: str,
        sources: Sequence[Source],
        rows: Sequence[LedgerRow],
        *,
        run_id: str,
        credentials: str | None,
        retry_now: bool | Collection[Fault | str],
    ) -> None:
        self.sources = tuple(sources)
        self._credentials = credentials
        self._retry_now = retry_now
        self._now = datetime.now(UTC)
        self._due: set[str] = set()
        self._last: dict[str, dict[str | None, AttemptRow]] = {}
        self._tries: Counter[tuple[str, str | None]] = Counter()
        failed = [row.video_id for row in rows if row.state not in (PENDING, DOWNLOADED)]
        if len(self.sources) > 1:
            ids = [row.video_id for row in rows]
            self._last = ledger.last_attempts(dataset, ids)
            self._tries = ledger.tries_in_run(dataset, ids, run_id=run_id)
        elif failed:
            for (video_id, _), tries in ledger.tries_in_run(dataset, failed, run_id=run_id).items():
                self._tries[video_id, None] += tries
            self._due = set(
                ledger.due(dataset, ids=failed, retry_now=retry_now, credentials=credentials)
            )

    def is_open(self, row: LedgerRow, source: Source) -> bool:
        """Whether a source is to be asked for a video now."""
        if row.state == DOWNLOADED:
            return False
        if len(self.sources) == 1:
            return self._is_due(row)
        last = self._last_at(row, source)
        if last is None or last.outcome == DOWNLOADED:
            return True
        policy = policy_of(Fault(last.outcome), last.rule)
        tries = self.tries(row.video_id, source)
        if tries:
            return tries < policy.attempts_in_run
        if self._retry_now is True or last.outcome in set(self._retry_now or ()):
            return True
        if last.next_attempt_at is not None and not self._is_waiting(last, policy):
            return True
        return (
            policy.returns_with == "downloader" and last.tool_version != downloader_version()
        ) or (
            policy.returns_with == "credentials"
            and self._credentials is not None
            and last.credentials != self._credentials
        )

    def is_unasked(self, row: LedgerRow) -> bool:
        """Whether one of several sources was never asked for a video that failed."""
        return row.state not in (PENDING, DOWNLOADED) and any(
            self._last_at(row, source) is None for source in self.sources if len(self.sources) > 1
        )

    def tries(self, video_id: str, source: Source) -> int:
        """How often this run has asked a source for a video."""
        return self._tries[video_id, self._key(video_id, source)]

    def add(self, attempt: AttemptRow, source: Source) -> None:
        """Take in an attempt of this run."""
        self._tries[attempt.video_id, self._key(attempt.video_id, source)] += 1
        self._last.setdefault(attempt.video_id, {})[attempt.url] = attempt

    def overall(self, row: LedgerRow) -> Overall | None:
        """What all sources together say about a video; None where there is one source."""
        if len(self.sources) == 1:
            return None
        said = [(source, self._last_at(row, source)) for source in self.sources]
        answers = [last for _, last in said if last is not None and last.outcome != DOWNLOADED]
        state, next_at = PENDING, None
        if len(answers) == len(self.sources):
            state = min(answers, key=_hopelessness).outcome
            # That one of them may have it again in some weeks does not make a video due soon.
            counted = [
                last for last in answers if state == last.outcome or last.outcome != Fault.GONE
            ]
            times = [last.next_attempt_at for last in counted if last.next_attempt_at is not None]
            next_at = min(times, default=None)
        message = "; ".join(
            f"{source.name}: {'not asked yet' if last is None else last.message}"
            for source, last in said
        )
        return Overall(state=state, message=message, next_attempt_at=next_at)

    def _is_due(self, row: LedgerRow) -> bool:
        tries = self._tries[row.video_id, None]
        if tries and row.state in set(Fault):
            # Tried in this run: due only while the fault's policy allows more attempts.
            return tries < POLICY[Fault(row.state)].attempts_in_run
        return row.state == PENDING or row.video_id in self._due

    def _is_waiting(self, last: AttemptRow, policy: Policy) -> bool:
        """Whether the time of the next attempt is to come."""
        wait_s = ((last.next_attempt_at or self._now) - self._now).total_seconds()
        ahead_s = (last.started_at - self._now).total_seconds()
        # Written by a clock that was ahead: nobody asked for such a long wait.
        is_believable = ahead_s <= CLOCK_SLACK_S or wait_s <= policy.longest_s
        return wait_s > 0 and is_believable

    def _key(self, video_id: str, source: Source) -> str | None:
        return None if len(self.sources) == 1 else source.shown(video_id)

    def _last_at(self, row: LedgerRow, source: Source) -> AttemptRow | None:
        attempts = self._last.get(row.video_id, {})
        last = attempts.get(source.shown(row.video_id))
        if last is None and source == self.sources[0] and None in attempts:
            # The row's schedule is the one of its only source.
            return replace(
                attempts[None], next_attempt_at=row.next_attempt_at, credentials=row.credentials
            )
        return last


def _hopelessness(attempt: AttemptRow) -> int:
    """The rank of a source's answer: the lowest one decides a video's state."""
    fault = Fault(attempt.outcome)
    temporary = (Fault.TRANSIENT, Fault.BLOCKED, Fault.LOCAL, Fault.CORRUPT)
    if fault in temporary and attempt.next_attempt_at is not None:
        return temporary.index(fault)
    order = (Fault.RESTRICTED, Fault.UNSUPPORTED, *temporary, Fault.GONE)
    return len(temporary) + order.index(fault)
