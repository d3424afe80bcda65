"""Whether the collection of a dataset is well: one judgement for all that show or tell it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from coinml.ledger import Ledger
from coinml.ledger.foreign_values import finite, text
from coinml.ledger.schema import sources

BLOCKED, STALLED, FAILED = "blocked", "stalled", "failed"
TROUBLES = (BLOCKED, STALLED, FAILED)

PATIENCE = timedelta(days=1)
"""A source may refuse, and nothing may come, for so long: sources have bad days."""

FAILURES = 2
"""Failed runs in a row that are a trouble; one may be a passing fault."""

SHOWN = 300
"""Characters of a failed run's message that are repeated."""

_ASKED_LATELY = timedelta(days=2)
"""A pause that ended longer ago says nothing of today: nobody has asked since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionFacts:
    """What is known of a collection that runs by a schedule.

    Attributes:
        due: Videos that a run starting now would try.
        last_answer: When a source last said something about a video, be it that it is gone; None:
            never.
        refused_since: Since when every source has refused everyone; None: one does not.
        refusal: What a source said when it refused.
        begun: When the schedule was made; None: nothing is known of one.
        planned: When the last run was to start that has had time to do something; None: none.
        failed_runs: Runs that have failed in a row, up to now.
        failure: Why the last of them failed, if that is known.
    """

    due: int = 0
    last_answer: datetime | None = None
    refused_since: datetime | None = None
    refusal: str = ""
    begun: datetime | None = None
    planned: datetime | None = None
    failed_runs: int = 0
    failure: str = ""


def troubles_of(facts: CollectionFacts, *, now: datetime) -> dict[str, str]:
    """What is wrong with a collection.

    Returns:
        A sentence for each of `TROUBLES` that it has; empty if it is well.
    """
    found = {}
    if facts.refused_since is not None and now - facts.refused_since > PATIENCE:
        found[BLOCKED] = (
            f"the source has refused everyone since {_moment(facts.refused_since)}"
            f"{f': {facts.refusal}' if facts.refusal else ''}"
        )
    elif facts.due and facts.begun is not None and facts.planned is not None:
        heard = facts.last_answer
        # Nothing was answered in the future: the clock was ahead.
        known = heard is not None and heard <= now
        since = max(facts.begun, heard) if heard is not None and known else facts.begun
        if now - since > PATIENCE and facts.planned > since:
            found[STALLED] = (
                f"{facts.due:,} videos are due, and no source has answered for one since "
                f"{_moment(since)}"
            )
    if facts.failed_runs >= FAILURES:
        why = f": {facts.failure.strip()[:SHOWN]}" if facts.failure.strip() else ""
        found[FAILED] = f"the last {facts.failed_runs} runs have failed{why}"
    return found


def read_facts(
    ledger: Ledger,
    dataset: str,
    source_names: Collection[str],
    *,
    now: datetime,
    begun: datetime | None,
    planned: datetime | None,
    credentials: str | None = None,
    failed_runs: int = 0,
    failure: str = "",
) -> CollectionFacts:
    """The facts of a collection, as the ledger has them.

    Args:
        ledger: Has the dataset, or not yet.
        dataset: Its name.
        source_names: Of the sources that its runs ask, from `pacing.source_name`.
        now: The present time.
        begun: As `CollectionFacts` has it.
        planned: As `CollectionFacts` has it.
        credentials: Digest of the cookies and the proxy in use.
        failed_runs: As `CollectionFacts` has it.
        failure: As `CollectionFacts` has it.
    """
    due = 0
    if dataset in ledger.datasets():
        due = ledger.status(dataset, now=now, credentials=credentials).due
    since, refusal = _refused_since(ledger, source_names, now)
    return CollectionFacts(
        due=due,
        last_answer=ledger.last_answer(dataset),
        refused_since=since,
        refusal=refusal,
        begun=begun,
        planned=planned,
        failed_runs=failed_runs,
        failure=failure,
    )


def _refused_since(
    ledger: Ledger, names: Collection[str], now: datetime
) -> tuple[datetime | None, str]:
    """Since when all of the sources have refused, and what one of them said."""
    query = select(sources).where(
        sources.c.source.in_(list(names)), sources.c.blocked_since.is_not(None)
    )
    rows = ledger.database.read(lambda connection: connection.execute(query).all())
    refusing: dict[datetime, str] = {}
    for row in rows:
        since, until = finite(row.blocked_since), finite(row.blocked_until)
        asked_lately = until is not None and until > (now - _ASKED_LATELY).timestamp()
        if since is not None and since <= now.timestamp() and asked_lately:
            refusing[datetime.fromtimestamp(since, UTC)] = text(row.reason)
    if not names or len(refusing) < len(set(names)):
        return None, ""
    last = max(refusing)
    return last, refusing[last]


def _moment(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"
