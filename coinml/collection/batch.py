"""Collecting one batch: lease, rate limit, download, verify, rename, record; see `collector`."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from coinml.collection.download import FetchOptions, fetch, http_status, is_unreachable, source_url
from coinml.collection.outcomes import (
    BatchReport,
    BatchUnfinishedError,
    SourcePausedError,
    VideoOutcome,
)
from coinml.collection.pacing import Admission, Pacer
from coinml.collection.video_folder import Verify, VideoFolder, verified_facts
from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError, LocalError
from coinml.faults.classification import JITTER, POLICY, Fault, explain, policy_of
from coinml.ledger import (
    DOWNLOADED,
    PENDING,
    Attempt,
    FileFacts,
    Ledger,
    LedgerRow,
    downloader_version,
)

log = logging.getLogger(__name__)

LEASE_S = 900.0
"""How long the videos of a collector that died on another host stay leased at most."""

_REFUSALS = 3
"""After this many refusals in a batch that answers others, a refusal concerns the video alone."""

_REFUSALS_403 = 2
"""The same for status 403, which more often concerns one file than the client."""


@dataclass(kw_only=True)
class Batch:
    """One call of `collect_batch`."""

    ledger: Ledger
    dataset: str
    source: str
    run_id: str
    options: FetchOptions
    credentials: str | None
    owner: str
    pacer: Pacer
    folder: VideoFolder
    max_wait_s: float
    retry_now: bool | Collection[Fault | str]
    verify: Verify | None
    duration_tolerance: float | None
    on_video: Callable[[VideoOutcome], None] | None

    downloaded: list[str] = field(default_factory=list)
    faults: dict[str, Fault] = field(default_factory=dict)
    again: dict[str, float] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    tries: dict[str, Counter[str]] = field(default_factory=dict)
    waited_s: float = 0.0
    unreached: int = 0
    queue: deque[str] = field(default_factory=deque)
    lease_renewed: float = field(default_factory=time.monotonic)

    def run(self, ids: Sequence[str]) -> BatchReport:
        """See `coinml.collection.collector.collect_batch`."""
        claimed = self.ledger.claim(self.dataset, ids, owner=self.owner, lease_s=LEASE_S)
        try:
            return self._run(ids, claimed)
        finally:
            # Recording a video ends its lease; others may still be leased.
            if set(claimed) - set(self.downloaded) - set(self.faults) - set(self.again):
                self.ledger.release(self.dataset, owner=self.owner)

    def _run(self, ids: Sequence[str], claimed: Sequence[str]) -> BatchReport:
        known = {row.video_id: row for row in self.ledger.rows(self.dataset, ids=claimed)}
        rows = {video_id: known[video_id] for video_id in claimed}
        self.queue = queue = deque(self._due(rows))
        skipped = tuple(video_id for video_id in ids if video_id not in set(queue))
        try:
            while queue:
                video_id = queue.popleft()
                try:
                    settled = self._collect(rows[video_id])
                except BaseException:
                    queue.appendleft(video_id)
                    raise
                if not settled:
                    # The source refused: try the other videos first.
                    queue.append(video_id)
        except SourcePausedError as err:
            err.report = self._report(untried=tuple(queue), skipped=skipped)
            raise
        report = self._report(skipped=skipped)
        if self.again:
            raise BatchUnfinishedError(
                f"{len(self.again)} of {len(ids)} videos are to be tried again",
                report=report,
                delay_s=max(0.0, max(self.again.values()) - time.time()),
            )
        return report

    def _report(
        self, *, untried: tuple[str, ...] = (), skipped: tuple[str, ...] = ()
    ) -> BatchReport:
        return BatchReport(
            downloaded=tuple(self.downloaded),
            faults=dict(self.faults),
            again=tuple(self.again),
            untried=untried,
            skipped=skipped,
            waited_s=self.waited_s,
        )

    def _due(self, rows: Mapping[str, LedgerRow]) -> list[str]:
        """The leased videos that are still due, since another collector may have been faster."""
        failed = [row.video_id for row in rows.values() if row.state not in (PENDING, DOWNLOADED)]
        due: set[str] = set()
        if failed:
            self.tries = self.ledger.attempts_in_run(self.dataset, failed, run_id=self.run_id)
            due.update(
                self.ledger.due(
                    self.dataset,
                    ids=failed,
                    retry_now=self.retry_now,
                    credentials=self.credentials,
                )
            )
        for row in rows.values():
            tries = self.tries.get(row.video_id)
            if tries and row.state in set(Fault):
                # Tried in this run: due only while the fault's policy allows more attempts.
                again = sum(tries.values()) < POLICY[Fault(row.state)].attempts_in_run
                (due.add if again else due.discard)(row.video_id)
            elif row.state == PENDING:
                due.add(row.video_id)
        return [video_id for video_id in rows if video_id in due]

    def _collect(self, row: LedgerRow) -> bool:
        """Collect one video; False when the source refused, which settles nothing about it."""
        video_id = row.video_id
        started, clock = datetime.now(UTC), time.perf_counter()
        if self._adopt(row, clock):
            return True
        self._renew_lease()
        admission = self._pass_gate()
        started, clock = datetime.now(UTC), time.perf_counter()
        try:
            fetched = fetch(
                video_id,
                source_url(self.source, video_id),
                self.folder.incoming,
                options=self.options,
                duration_s=row.duration_s,
                on_data=lambda: self.pacer.answered(admission),
            )
            self.pacer.answered(admission)
            facts = self._verified(row, fetched.path, title=fetched.title)
        except LocalError:
            self.pacer.undecided(admission)
            raise
        except InvalidInputError:
            self.pacer.undecided(admission)
            raise
        except CoinmlError as err:
            attempt = self._attempt(started, clock, None)
            return self._failed(row, err, admission, attempt)
        except BaseException:
            self.pacer.undecided(admission)
            raise
        self._record(row, facts, self._attempt(started, clock, facts.size_bytes), clock)
        return True

    def _adopt(self, row: LedgerRow, clock: float) -> bool:
        """Record a file that an earlier run had downloaded, or even renamed, but not recorded."""
        for path in self.folder.leftovers(row.video_id):
            try:
                facts = self._verified(row, path)
            except CorruptVideoError as err:
                log.info("%s: %s does not decode (%s); downloading", row.video_id, path, err)
                self.folder.discard(path)
                continue
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
        self.unreached = 0
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
        self, row: LedgerRow, err: CoinmlError, admission: Admission, attempt: Attempt
    ) -> bool:
        fault, rule = explain(err)
        if fault is Fault.BLOCKED and not self._concerns_video_alone(row.video_id, err, admission):
            self.pacer.refused(
                admission,
                str(err),
                retry_after_s=getattr(err, "retry_after_s", None),
                suspicion=http_status(err) == 403,
            )
            return False
        if is_unreachable(err):
            self.unreached += 1
            if self.unreached > 1 or admission.kind == "probe":
                # The second failure in a row to connect: the source is down, not the video.
                self.pacer.refused(admission, str(err), unreachable=True)
                return False
        else:
            self.unreached = 0
        if fault is Fault.TRANSIENT:
            # A broken connection does not tell whether the source refuses.
            self.pacer.undecided(admission)
        else:
            self.pacer.answered(admission)
        self._record_fault(row, fault, rule, str(err), attempt)
        return True

    def _concerns_video_alone(self, video_id: str, err: CoinmlError, admission: Admission) -> bool:
        """Whether a refusal concerns this video and not the client."""
        self.refusals[video_id] += 1
        forbidden = http_status(err) == 403
        if self.refusals[video_id] < (_REFUSALS_403 if forbidden else _REFUSALS):
            return False
        # "go" means that the source has answered another video since its last refusal. For the
        # last video of a batch there is no other, and its 403 must not pause the source.
        return admission.kind == "go" or (forbidden and not self.queue)

    def _record_fault(
        self, row: LedgerRow, fault: Fault, rule: str, message: str, attempt: Attempt
    ) -> None:
        video_id, policy = row.video_id, policy_of(fault, rule)
        tries = self.tries.setdefault(video_id, Counter())
        tries[str(fault)] += 1
        failures = self.ledger.failures(self.dataset, video_id, fault) + 1
        given_up = policy.attempts_in_all is not None and failures >= policy.attempts_in_all
        again = not given_up and sum(tries.values()) < policy.attempts_in_run
        delay = (
            policy.delay_in_run_s(sum(tries.values())) if again else policy.delay_later_s(failures)
        )
        next_at = None
        if delay is not None:
            next_at = time.time() + delay * random.uniform(1 - JITTER, 1 + JITTER)
        kept = None
        if fault is Fault.CORRUPT:
            # The last bad copy is kept for inspection.
            kept = self.folder.put_aside(video_id, keep=given_up)
        self.ledger.record_fault(
            self.dataset,
            video_id,
            fault=fault,
            message=message,
            rule=rule,
            attempt=attempt,
            next_attempt_at=None if next_at is None else datetime.fromtimestamp(next_at, UTC),
            path=None if kept is None else str(kept),
        )
        if again and next_at is not None:
            self.again[video_id] = next_at
        else:
            self.faults[video_id] = fault
        self._tell(
            VideoOutcome(
                video_id=video_id,
                state=str(fault),
                message=message,
                seconds=attempt.seconds,
                settled=video_id not in self.again,
            )
        )

    def _pass_gate(self) -> Admission:
        """Wait for a token of the rate limit and for the circuit breaker.

        Raises:
            SourcePausedError: The source is paused for longer than this call may wait.
        """
        self.folder.check_room()
        wait_s = self.pacer.reserve()
        while wait_s > 0:
            time.sleep(min(wait_s, 60.0))
            wait_s -= 60.0
            self._renew_lease()
        while True:
            admission = self.pacer.admit()
            if admission.kind != "wait":
                return admission
            if admission.blocked_until is None:
                # Another collector probes the source.
                time.sleep(admission.wait_s)
                continue
            if self.waited_s + admission.wait_s > self.max_wait_s:
                until = datetime.fromtimestamp(admission.blocked_until, UTC)
                raise SourcePausedError(
                    f"{self.pacer.source} is paused until {until:%Y-%m-%d %H:%M:%S} UTC "
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

    def _attempt(self, started: datetime, clock: float, size_bytes: int | None) -> Attempt:
        return Attempt(
            run_id=self.run_id,
            started_at=started,
            seconds=time.perf_counter() - clock,
            size_bytes=size_bytes,
            tool_version=downloader_version(),
            credentials=self.credentials,
        )

    def _tell(self, outcome: VideoOutcome) -> None:
        if self.on_video is not None:
            self.on_video(outcome)
