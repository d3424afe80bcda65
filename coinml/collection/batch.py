"""Collecting one batch: lease, rate limit, download, verify, rename, record; see `collector`."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from coinml.collection.lane import Lane
from coinml.collection.outcomes import (
    BatchReport,
    BatchUnfinishedError,
    SourcePausedError,
    VideoOutcome,
)
from coinml.collection.pacing import Admission
from coinml.collection.source_history import SourceHistory
from coinml.collection.video_folder import Verify, VideoFolder, verified_facts
from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError, LocalError
from coinml.faults.classification import JITTER, Fault, explain, policy_of
from coinml.ledger import (
    DOWNLOADED,
    Attempt,
    AttemptRow,
    FileFacts,
    Ledger,
    LedgerRow,
    downloader_version,
)

log = logging.getLogger(__name__)

LEASE_S = 900.0
"""How long the videos of a collector that died on another host stay leased at most."""


@dataclass(kw_only=True)
class Batch:
    """One call of `collect_batch`."""

    ledger: Ledger
    dataset: str
    lanes: Sequence[Lane]
    ask: str | None
    run_id: str
    credentials: str | None
    owner: str
    folder: VideoFolder
    max_wait_s: float
    retry_now: bool | Collection[Fault | str]
    verify: Verify | None
    duration_tolerance: float | None
    on_video: Callable[[VideoOutcome], None] | None

    downloaded: list[str] = field(default_factory=list)
    failed: dict[str, Fault] = field(default_factory=dict)
    waited_s: float = 0.0
    rows: dict[str, LedgerRow] = field(init=False)
    due: set[str] = field(init=False)
    history: SourceHistory = field(init=False)
    lease_renewed: float = field(default_factory=time.monotonic)

    def run(self, ids: Sequence[str]) -> BatchReport:
        """See `coinml.collection.collector.collect_batch`."""
        claimed = self.ledger.claim(self.dataset, ids, owner=self.owner, lease_s=LEASE_S)
        try:
            return self._run(ids, claimed)
        finally:
            # Recording a video ends its lease, unless other sources are to be asked for it.
            if set(claimed) - set(self.downloaded) - (set(self.failed) if self._alone else set()):
                self.ledger.release(self.dataset, owner=self.owner)

    def _run(self, ids: Sequence[str], claimed: Sequence[str]) -> BatchReport:
        self.rows = {row.video_id: row for row in self.ledger.rows(self.dataset, ids=claimed)}
        # Another collector may have been faster: what is due is read after leasing.
        self.history = SourceHistory(
            self.ledger,
            self.dataset,
            [lane.source for lane in self.lanes],
            list(self.rows.values()),
            run_id=self.run_id,
            credentials=self.credentials,
            retry_now=self.retry_now,
        )
        asked = [lane for lane in self.lanes if self.ask in (None, lane.source.template)]
        for lane in asked:
            lane.queue.extend(one for one in claimed if self._is_open(one, lane))
        self.due = {video_id for lane in asked for video_id in lane.queue}
        for lane in asked:
            # A source that pauses must not delay what the others have.
            self._ask(lane, max_wait_s=self.max_wait_s if self._alone else 0.0)
        if self.ask is None and not self._alone:
            for lane in asked:
                self._ask(lane, max_wait_s=self.max_wait_s)
        return self._reported(ids)

    def _reported(self, ids: Sequence[str]) -> BatchReport:
        """The report, or the error that carries it."""
        downloaded = set(self.downloaded)
        left = [one for one in ids if one in self.due and one not in downloaded]
        paused = {video_id for lane in self.lanes if lane.paused for video_id in lane.queue}
        again = {one: self._again(one) for one in left}
        times = {one: at for one, at in again.items() if at is not None}
        report = BatchReport(
            downloaded=tuple(self.downloaded),
            faults={
                one: self.failed[one]
                for one in left
                if one in self.failed and one not in times and one not in paused
            },
            again=tuple(times),
            untried=tuple(one for one in left if one in paused and one not in times),
            skipped=tuple(one for one in ids if one not in self.due),
            waited_s=self.waited_s,
        )
        errors = [lane.paused for lane in self.lanes if lane.paused and lane.queue]
        if self.ask is not None or not (times or errors):
            return report
        if errors and (self._alone or not times):
            errors[0].report = report
            raise errors[0]
        raise BatchUnfinishedError(
            f"{len(times)} of {len(ids)} videos are to be tried again",
            report=report,
            delay_s=max(0.0, max(times.values()) - time.monotonic()),
        )

    @property
    def _alone(self) -> bool:
        """Whether there is one source."""
        return len(self.lanes) == 1

    def _again(self, video_id: str) -> float | None:
        """When this run may ask a source for a video again, in seconds of `time.monotonic`."""
        times = [lane.again[video_id] for lane in self.lanes if video_id in lane.again]
        return min(times, default=None)

    def _is_open(self, video_id: str, lane: Lane) -> bool:
        return self.history.is_open(self.rows[video_id], lane.source)

    def _is_settled(self, video_id: str) -> bool:
        """Whether this run asks no source for a video that failed any more."""
        if self._again(video_id) is not None:
            return False
        return self._alone or not any(self._is_open(video_id, one) for one in self.lanes)

    def _ask(self, lane: Lane, *, max_wait_s: float) -> None:
        """Ask one source for each video of its queue, until it is paused for too long."""
        lane.paused = None
        while lane.queue:
            video_id = lane.queue.popleft()
            if video_id in self.downloaded:
                continue
            try:
                settled = self._collect(self.rows[video_id], lane, max_wait_s)
            except SourcePausedError as err:
                lane.queue.appendleft(video_id)
                lane.paused = err
                return
            if not settled:
                # The source refused: try the other videos first.
                lane.queue.append(video_id)

    def _collect(self, row: LedgerRow, lane: Lane, max_wait_s: float) -> bool:
        """Ask a source for one video; False when it refused, which settles nothing."""
        clock = time.perf_counter()
        if self._adopt(row, clock):
            return True
        self._renew_lease()
        admission = self._pass_gate(lane, max_wait_s)
        started, clock = datetime.now(UTC), time.perf_counter()
        attempt = self._attempt(row, lane, started)
        try:
            fetched = lane.fetch(
                row,
                self.folder.incoming,
                on_data=lambda: self._arrives(lane, attempt, admission, row),
                on_arrival=self._renew_lease,
            )
            lane.pacer.answered(admission)
            facts = self._verified(row, fetched.path, title=fetched.title)
        except (LocalError, InvalidInputError):
            lane.pacer.undecided(admission)
            raise
        except CoinmlError as err:
            attempt = replace(attempt, seconds=time.perf_counter() - clock)
            return self._failed(row, lane, err, admission, attempt)
        except BaseException:
            lane.pacer.undecided(admission)
            raise
        facts = replace(facts, source=attempt.source, url=fetched.url or attempt.url)
        attempt = replace(attempt, seconds=time.perf_counter() - clock, size_bytes=facts.size_bytes)
        lane.failures = 0
        self._record(row, facts, attempt, clock)
        return True

    def _arrives(self, lane: Lane, attempt: Attempt, admission: Admission, row: LedgerRow) -> None:
        """Take note that the first bytes of a video have come, and where from."""
        lane.pacer.answered(admission)
        self.ledger.note_source(
            self.dataset,
            row.video_id,
            source=attempt.source or lane.source.name,
            url=attempt.url or lane.source.shown(row.video_id),
        )

    def _adopt(self, row: LedgerRow, clock: float) -> bool:
        """Record a file that an earlier run had downloaded, or even renamed, but not recorded."""
        for path in self.folder.leftovers(row.video_id):
            try:
                facts = self._verified(row, path)
            except CorruptVideoError as err:
                log.info("%s: %s does not decode (%s); downloading", row.video_id, path, err)
                self.folder.discard(path)
                continue
            facts = replace(facts, source=row.source, url=row.url)
            self._record(row, facts, None, clock)
            return True
        return False

    def _verified(self, row: LedgerRow, path: Path, *, title: str | None = None) -> FileFacts:
        facts = verified_facts(
            path,
            verify=self.verify,
            duration_s=row.duration_s,
            tolerance=self.duration_tolerance,
        )
        return self.folder.put(path, replace(facts, title=title))

    def _record(
        self, row: LedgerRow, facts: FileFacts, attempt: Attempt | None, clock: float
    ) -> None:
        self.ledger.record_success(self.dataset, row.video_id, file=facts, attempt=attempt)
        self.downloaded.append(row.video_id)
        self._tell(
            VideoOutcome(
                video_id=row.video_id,
                state=DOWNLOADED,
                path=facts.path,
                size_bytes=facts.size_bytes,
                seconds=time.perf_counter() - clock,
                fetched=attempt is not None,
            )
        )

    def _failed(
        self, row: LedgerRow, lane: Lane, err: CoinmlError, admission: Admission, attempt: Attempt
    ) -> bool:
        fault, rule = explain(err)
        if not lane.take_failure(row.video_id, err, fault, admission):
            return False
        self._record_fault(row, lane, fault, rule, str(err), attempt)
        return True

    def _record_fault(
        self, row: LedgerRow, lane: Lane, fault: Fault, rule: str, message: str, attempt: Attempt
    ) -> None:
        video_id, policy = row.video_id, policy_of(fault, rule)
        tries = self.history.tries(video_id, lane.source) + 1
        at_source = None if self._alone else attempt.url
        failures = self.ledger.failures(self.dataset, video_id, fault, url=at_source) + 1
        given_up = policy.attempts_in_all is not None and failures >= policy.attempts_in_all
        again = not given_up and tries < policy.attempts_in_run
        delay = policy.delay_in_run_s(tries) if again else policy.delay_later_s(failures)
        if delay is not None:
            delay *= random.uniform(1 - JITTER, 1 + JITTER)
        kept = None
        if fault is Fault.CORRUPT:
            # The last bad copy is kept for inspection.
            kept = self.folder.put_aside(video_id, keep=given_up)
        next_attempt_at = None if delay is None else datetime.now(UTC) + timedelta(seconds=delay)
        self.history.add(
            AttemptRow(
                video_id=video_id,
                run_id=attempt.run_id,
                started_at=attempt.started_at,
                seconds=attempt.seconds,
                outcome=str(fault),
                message=message,
                rule=rule,
                size_bytes=attempt.size_bytes,
                tool_version=attempt.tool_version,
                source=attempt.source,
                url=attempt.url,
                next_attempt_at=next_attempt_at,
                credentials=attempt.credentials,
            ),
            lane.source,
        )
        overall = self.history.overall(row)
        self.ledger.record_fault(
            self.dataset,
            video_id,
            fault=fault,
            message=message,
            rule=rule,
            attempt=attempt,
            next_attempt_at=next_attempt_at,
            path=None if kept is None else str(kept),
            overall=overall,
            keep_lease=not self._alone,
        )
        lane.again.pop(video_id, None)
        if again and delay is not None:
            # Not by the clock of day: if that is set back, this run would sleep for days.
            lane.again[video_id] = time.monotonic() + delay
        self.failed[video_id] = fault
        self._tell(
            VideoOutcome(
                video_id=video_id,
                state=str(fault),
                message=message,
                seconds=attempt.seconds,
                settled=self._is_settled(video_id),
            )
        )

    def _pass_gate(self, lane: Lane, max_wait_s: float) -> Admission:
        """Wait for a token of the rate limit and for the circuit breaker.

        Raises:
            SourcePausedError: The source is paused for longer than this call may wait.
        """
        self.folder.check_room()
        wait_s = lane.pacer.reserve()
        while wait_s > 0:
            time.sleep(min(wait_s, 60.0))
            wait_s -= 60.0
            self._renew_lease()
        while True:
            admission = lane.pacer.admit()
            if admission.kind != "wait":
                return admission
            if admission.blocked_until is None:
                # Another collector probes the source.
                time.sleep(admission.wait_s)
                continue
            if self.waited_s + admission.wait_s > max_wait_s:
                until = datetime.fromtimestamp(admission.blocked_until, UTC)
                raise SourcePausedError(
                    f"{lane.pacer.source} is paused until {until:%Y-%m-%d %H:%M:%S} UTC "
                    f"({admission.reason})",
                    blocked_until=until,
                    retry_after_s=admission.wait_s,
                )
            pause = min(admission.wait_s, 1.0)
            time.sleep(pause)
            self.waited_s += pause

    def _renew_lease(self) -> None:
        if time.monotonic() - self.lease_renewed > LEASE_S / 3:
            self.ledger.extend(self.dataset, owner=self.owner, lease_s=LEASE_S)
            self.lease_renewed = time.monotonic()

    def _attempt(self, row: LedgerRow, lane: Lane, started: datetime) -> Attempt:
        return Attempt(
            run_id=self.run_id,
            started_at=started,
            tool_version=downloader_version(),
            credentials=self.credentials,
            source=lane.source.name,
            url=lane.source.shown(row.video_id),
        )

    def _tell(self, outcome: VideoOutcome) -> None:
        if self.on_video is not None:
            self.on_video(outcome)
