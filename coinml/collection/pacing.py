"""The rate limit (a token bucket) and the circuit breaker of a source.

The state of both is one row of the ledger's database, so all threads and processes share them
(and all hosts, if the ledger is in PostgreSQL).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, select, text, update

from coinml.ledger.database import Database
from coinml.ledger.foreign_values import finite
from coinml.ledger.schema import sources
from coinml.runtime.addresses import parts_of

log = logging.getLogger(__name__)

_PROBE_S = 180.0
"""A probe not reported after this time was lost with its process."""

_WAITING = 128
"""Collectors of a source that may wait for their tokens at once."""

_UNASKED_S = 2 * 86400.0
"""A refusal so long after the last pause says nothing about the time in between."""

_SLACK_S = 60.0
"""A clock may be corrected by so much without having jumped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How long the source is paused after it refused.

    Attributes:
        by_strike_s: Seconds after the first, second, ... refusal in a row without a Retry-After;
            the last repeats.
        unreachable_s: The same where no connection can be made.
        longest_s: Upper limit of a pause that the source asks for (Retry-After).

    A time in the database that is further away than any of these was written by a clock that was
    ahead, and counts as over.
    """

    by_strike_s: tuple[float, ...] = (30.0, 300.0, 1800.0, 3600.0)
    unreachable_s: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 60.0, 300.0)
    longest_s: float = 6 * 3600.0

    def may_end_at(self, until: float | None, now: float) -> bool:
        """Whether a pause that ends then can have begun by now; times in seconds."""
        longest = max(self.longest_s, *self.by_strike_s, *self.unreachable_s)
        return until is not None and until <= now + longest + _SLACK_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a source may be asked.

    Attributes:
        rate_per_hour: Videos per hour over all collectors of the source; None: no limit.
        burst: Videos that may start at once after an idle time.
        pauses: Lengths of the pauses after refusals.
    """

    rate_per_hour: float | None = None
    burst: int = 8
    pauses: Pauses = Pauses()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The circuit breaker's answer to a request to ask the source.

    Attributes:
        kind: "go", "probe" (go, as the only one, and report the result), or "wait".
        wait_s: For "wait": seconds until the next request makes sense.
        blocked_until: End of the pause in seconds since the epoch, while the source is paused.
        reason: Why the source is paused.
        strikes: Number of refusals in a row when this was answered.
    """

    kind: Literal["go", "probe", "wait"]
    wait_s: float = 0.0
    blocked_until: float | None = None
    reason: str | None = None
    strikes: int = 0


def source_name(template: str) -> str:
    """The name of a source: host (and port) of its URL template, without "www."."""
    return parts_of(template).netloc.rpartition("@")[2].casefold().removeprefix("www.")


class Pacer:
    """Rate limit and circuit breaker of one source, as used by one collector.

    Args:
        database: The ledger's database.
        source: From `source_name`.
        owner: Identifies the collector.
        pace: Rate limit and pauses.
    """

    def __init__(
        self,
        database: Database,
        source: str,
        *,
        owner: str,
        pace: Pace | None = None,
    ) -> None:
        pace = pace or Pace()
        self.source = source
        self.owner = owner
        self.pauses = pace.pauses
        self._database = database
        self._interval_s = 3600.0 / pace.rate_per_hour if pace.rate_per_hour else 0.0
        self._burst = max(1, pace.burst)

    def reserve(self) -> float:
        """Take a token of the rate limit and return the seconds until it may be used (0: now).

        An unused token is lost, which only makes the collector slower.
        """
        if not self._interval_s:
            return 0.0

        def work(connection: Connection) -> float:
            now, row = self._locked(connection)
            full_at = max(finite(row.full_at) or 0.0, now)
            if full_at > now + (self._burst + _WAITING) * self._interval_s + _SLACK_S:
                # The clock was ahead: how full the bucket is, is unknown. Empty is the safe guess.
                full_at = now + self._burst * self._interval_s
            full_at += self._interval_s
            self._set(connection, full_at=full_at)
            return max(0.0, full_at - self._burst * self._interval_s - now)

        return self._database.write(work)

    def admit(self) -> Admission:
        """Ask whether the source may be asked now; report the result of a "go" or a "probe"."""
        query = select(sources).where(sources.c.source == self.source)
        row = self._database.read(lambda connection: connection.execute(query).first())
        if row is None or finite(row.blocked_until) is None:
            return Admission(kind="go")
        return self._database.write(self._admit)

    def _admit(self, connection: Connection) -> Admission:
        now, row = self._locked(connection)
        until = finite(row.blocked_until)
        if until is None:
            return Admission(kind="go", strikes=row.strikes)
        if now < until and self.pauses.may_end_at(until, now):
            return Admission(
                kind="wait", wait_s=until - now, blocked_until=until, reason=row.reason
            )
        probe_until = finite(row.probe_until) or 0.0
        if (
            row.probe_owner not in (None, self.owner)
            and now < probe_until <= now + _PROBE_S + _SLACK_S
        ):
            return Admission(kind="wait", wait_s=0.2, reason=row.reason)
        self._set(connection, probe_owner=self.owner, probe_until=now + _PROBE_S)
        return Admission(kind="probe", reason=row.reason, strikes=row.strikes)

    def answered(self, admission: Admission) -> None:
        """Report that the source answered, be it that a video is gone."""
        if admission.kind != "probe":
            return

        def work(connection: Connection) -> None:
            _, row = self._locked(connection)
            if row.probe_owner == self.owner:
                self._set(
                    connection,
                    blocked_until=None,
                    blocked_since=None,
                    reason=None,
                    strikes=0,
                    probe_owner=None,
                    probe_until=None,
                )
                log.info("%s answers again", self.source)

        self._database.write(work)

    def undecided(self, admission: Admission) -> None:
        """Report that the result says nothing about the source, so that another may probe."""
        if admission.kind == "probe":
            self._database.write(self._give_up_probe)

    def _give_up_probe(self, connection: Connection) -> None:
        _, row = self._locked(connection)
        if row.probe_owner == self.owner:
            self._set(connection, probe_owner=None, probe_until=None)

    def refused(
        self,
        admission: Admission,
        reason: str,
        *,
        retry_after_s: float | None = None,
        suspicion: bool = False,
        unreachable: bool = False,
    ) -> float:
        """Report a refusal, which pauses the source for all collectors.

        Args:
            admission: The admission of the request.
            reason: The source's message.
            retry_after_s: Seconds that the source asked to wait.
            suspicion: The refusal may concern only this video, so the first one makes the next
                request a probe instead of pausing the source.
            unreachable: No connection was made.

        Returns:
            When the source may be asked again, in seconds since the epoch.
        """

        def work(connection: Connection) -> float:
            now, row = self._locked(connection)
            # A request admitted before the pause began is no further strike; it can only make
            # the pause longer.
            late = row.blocked_until is not None and admission.strikes != row.strikes
            strikes = row.strikes + (not late)
            if retry_after_s is not None:
                pause = min(retry_after_s, self.pauses.longest_s)
            elif suspicion and strikes <= 1:
                pause = 0.0
            else:
                steps = self.pauses.unreachable_s if unreachable else self.pauses.by_strike_s
                pause = steps[min(max(strikes - suspicion, 1), len(steps)) - 1]
            before = finite(row.blocked_until)
            until = now + pause
            if before is not None and self.pauses.may_end_at(before, now):
                until = max(until, before)
            since = finite(row.blocked_since)
            if since is None or since > now or before is None or now - before > _UNASKED_S:
                since = now
            self._set(
                connection,
                blocked_until=until,
                reason=reason,
                strikes=strikes,
                blocked_since=since,
                **({} if late else {"probe_owner": None, "probe_until": None}),
            )
            log.info("%s refuses (%s): paused for %.0f s", self.source, reason, until - now)
            return until

        return self._database.write(work)

    def _locked(self, connection: Connection) -> tuple[float, Row[Any]]:
        """The current time, and the source's row, locked until the transaction ends."""
        query = select(sources).where(sources.c.source == self.source).with_for_update()
        row = connection.execute(query).first()
        if row is None:
            if connection.dialect.name == "sqlite":
                from sqlalchemy.dialects.sqlite import insert
            else:
                from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
            connection.execute(insert(sources).on_conflict_do_nothing(), {"source": self.source})
            row = connection.execute(query).one()
        if connection.dialect.name == "sqlite":
            return time.time(), row
        # Clocks of several hosts differ; the database has one.
        clock = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar()
        return float(clock or 0.0), row

    def _set(self, connection: Connection, **values: object) -> None:
        connection.execute(update(sources).where(sources.c.source == self.source).values(**values))
