"""How hard the source may be pulled at: a token bucket and a breaker for everyone at once.

The state of both is one row of the ledger's database, so they hold across threads and processes
(and across hosts when the ledger is PostgreSQL).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from sqlalchemy import Connection, Row, select, text, update

from coinml.ledger.database import Database
from coinml.ledger.schema import sources

log = logging.getLogger(__name__)

_PROBE_S = 180.0
"""A probe that was not reported after this long was lost with its process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pauses:
    """How long the source is left alone when it refuses without saying for how long.

    Attributes:
        by_strike_s: Seconds after the first, second, ... refusal in a row; the last repeats.
        unreachable_s: The same when it cannot even be reached.
        longest_s: What the source itself asks for is believed up to this.
    """

    by_strike_s: tuple[float, ...] = (30.0, 300.0, 1800.0, 3600.0)
    unreachable_s: tuple[float, ...] = (2.0, 5.0, 10.0, 20.0, 60.0, 300.0)
    longest_s: float = 6 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What the breaker says to someone who wants to ask the source for a video.

    Attributes:
        kind: "go", "probe" (go, as the only one, and report back), or "wait".
        wait_s: For "wait": seconds until asking again makes sense.
        blocked_until: Seconds since the epoch, while the source is paused.
        reason: Why it is paused.
        strikes: How many refusals in a row had been counted when this was said.
    """

    kind: Literal["go", "probe", "wait"]
    wait_s: float = 0.0
    blocked_until: float | None = None
    reason: str | None = None
    strikes: int = 0


def source_name(template: str) -> str:
    """What the pace is kept for: the host (and port) of a URL template, without its "www."."""
    return urlsplit(template).netloc.rpartition("@")[2].casefold().removeprefix("www.")


def is_loopback(template: str) -> bool:
    """Whether a source is this machine, which needs no pacing."""
    host = urlsplit(template).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


class Pacer:
    """The gate before one source, for one collector.

    Args:
        database: The ledger's.
        source: From `source_name`.
        owner: Names the collector among all others.
        rate_per_hour: Videos an hour; None: no limit.
        burst: How many may go at once after a quiet time.
        pauses: How long a refusal holds.
    """

    def __init__(
        self,
        database: Database,
        source: str,
        *,
        owner: str,
        rate_per_hour: float | None = None,
        burst: int = 8,
        pauses: Pauses | None = None,
    ) -> None:
        self.source = source
        self.owner = owner
        self.pauses = pauses or Pauses()
        self._database = database
        self._interval_s = 3600.0 / rate_per_hour if rate_per_hour else 0.0
        self._burst = max(1, burst)

    def reserve(self) -> float:
        """Take a token; its time comes after the seconds returned (0: now).

        A token that is not used is lost: that errs on the side of the source.
        """
        if not self._interval_s:
            return 0.0

        def work(connection: Connection) -> float:
            now, row = self._locked(connection)
            full_at: float = max(row.full_at, now) + self._interval_s
            self._set(connection, full_at=full_at)
            return max(0.0, full_at - self._burst * self._interval_s - now)

        return self._database.write(work)

    def admit(self) -> Admission:
        """Ask whether the source may be asked now; "probe" and "go" must be reported back."""
        query = select(sources).where(sources.c.source == self.source)
        row = self._database.read(lambda connection: connection.execute(query).first())
        if row is None or row.blocked_until is None:
            return Admission(kind="go")
        return self._database.write(self._admit)

    def _admit(self, connection: Connection) -> Admission:
        now, row = self._locked(connection)
        until = row.blocked_until
        if until is None:
            return Admission(kind="go", strikes=row.strikes)
        if now < until:
            return Admission(
                kind="wait", wait_s=until - now, blocked_until=until, reason=row.reason
            )
        if row.probe_owner not in (None, self.owner) and now < (row.probe_until or 0.0):
            return Admission(kind="wait", wait_s=0.2, reason=row.reason)
        self._set(connection, probe_owner=self.owner, probe_until=now + _PROBE_S)
        return Admission(kind="probe", reason=row.reason, strikes=row.strikes)

    def answered(self, admission: Admission) -> None:
        """Report that the source answered (were it only that a video is gone)."""
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
        """Report that nothing was learnt about the source (the line broke): another may probe."""
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
        """Report a refusal: the source is paused for everyone.

        Args:
            admission: What let this request through.
            reason: The source's words.
            retry_after_s: Seconds that the source asked for.
            suspicion: It may be this video's own trouble: a first refusal only has the next
                video go alone, as a probe.
            unreachable: Nobody answered at all.

        Returns:
            When the source may be asked again, in seconds since the epoch.
        """

        def work(connection: Connection) -> float:
            now, row = self._locked(connection)
            # Whoever was under way when the pause began adds nothing to it but a longer wish.
            late = row.blocked_until is not None and admission.strikes != row.strikes
            strikes = row.strikes + (not late)
            if retry_after_s is not None:
                pause = min(retry_after_s, self.pauses.longest_s)
            elif suspicion and strikes <= 1:
                pause = 0.0
            else:
                steps = self.pauses.unreachable_s if unreachable else self.pauses.by_strike_s
                pause = steps[min(max(strikes - suspicion, 1), len(steps)) - 1]
            until: float = max(now + pause, row.blocked_until or 0.0)
            self._set(
                connection,
                blocked_until=until,
                reason=reason,
                strikes=strikes,
                blocked_since=row.blocked_since if late else now,
                **({} if late else {"probe_owner": None, "probe_until": None}),
            )
            log.info("%s refuses (%s): paused for %.0f s", self.source, reason, until - now)
            return until

        return self._database.write(work)

    def _locked(self, connection: Connection) -> tuple[float, Row[Any]]:
        """The time, and the source's row, which nobody else may change meanwhile."""
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
        # Hosts have clocks of their own; the database has one.
        clock = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar()
        return float(clock or 0.0), row

    def _set(self, connection: Connection, **values: object) -> None:
        connection.execute(update(sources).where(sources.c.source == self.source).values(**values))
