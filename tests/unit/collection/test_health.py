"""A collection is not well if it is blocked or stalled for a day, or has failed twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coinml.collection.health import CollectionFacts, read_facts, troubles_of
from coinml.collection.pacing import Pacer
from coinml.faults.classification import Fault
from coinml.ledger import Attempt, Ledger, new_owner
from tests.helpers.ledger_rows import dataset, facts, ids

NOW = datetime.now(UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WELL = CollectionFacts(due=11_000, last_answer=NOW - HOUR, begun=NOW - 30 * DAY, planned=NOW - HOUR)


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    with Ledger(ledger_url) as opened:
        opened.register(dataset())
        yield opened


def kinds(some: CollectionFacts, *, now: datetime = NOW) -> list[str]:
    return list(troubles_of(some, now=now))


def test_a_collection_that_gets_answers_is_well() -> None:
    assert kinds(WELL) == []
    assert kinds(CollectionFacts()) == []
    # It is complete, and nobody has asked for a year.
    assert kinds(replace(WELL, due=0, last_answer=NOW - 365 * DAY)) == []


def test_a_source_may_refuse_for_a_day() -> None:
    refusing = replace(WELL, refused_since=NOW - 23 * HOUR, refusal="429")
    assert kinds(refusing) == []
    told = troubles_of(refusing, now=NOW + 2 * HOUR)
    assert list(told) == ["blocked"]
    assert told["blocked"].endswith("UTC: 429")
    # That nothing comes follows from it.
    assert kinds(replace(refusing, refused_since=NOW - 3 * DAY, last_answer=NOW - 3 * DAY)) == [
        "blocked"
    ]


def test_videos_that_are_due_may_wait_for_a_day() -> None:
    silent = replace(WELL, last_answer=NOW - 2 * DAY)
    assert kinds(replace(WELL, last_answer=NOW - 23 * HOUR)) == []
    assert kinds(silent) == ["stalled"]
    assert "11,000 videos are due" in troubles_of(silent, now=NOW)["stalled"]
    assert kinds(replace(silent, due=0)) == []
    # The first answer is awaited from the day on which the schedule was made.
    assert kinds(replace(silent, last_answer=None)) == ["stalled"]
    assert kinds(replace(silent, last_answer=None, begun=NOW - HOUR)) == []
    # An answer in the future was written by a clock that was ahead.
    assert kinds(replace(silent, last_answer=NOW + 9 * DAY)) == ["stalled"]


def test_what_no_schedule_awaits_does_not_stall() -> None:
    silent = replace(WELL, last_answer=NOW - 5 * DAY)
    # Runs are started by hand; or the weekly run, which got answers, is not due again yet.
    assert kinds(replace(silent, begun=None)) == []
    assert kinds(replace(silent, planned=None)) == []
    assert kinds(replace(silent, planned=NOW - 5 * DAY - HOUR)) == []


def test_two_failed_runs_in_a_row_are_a_trouble() -> None:
    assert kinds(replace(WELL, failed_runs=1)) == []
    assert kinds(replace(WELL, failed_runs=2)) == ["failed"]
    assert kinds(replace(WELL, failed_runs=2, refused_since=NOW - 2 * DAY)) == ["blocked", "failed"]


def test_the_facts_are_those_of_the_ledger(ledger: Ledger) -> None:
    def read(*names: str, now: datetime = NOW, name: str = "mini") -> CollectionFacts:
        return read_facts(ledger, name, names, now=now, begun=None, planned=None)

    assert read("tube.example") == CollectionFacts(due=len(ids()))
    assert read("tube.example", name="unknown") == CollectionFacts()
    first, second, *_ = ids()
    answered = Attempt(run_id="r", started_at=NOW - 5 * HOUR)
    ledger.record_success("mini", first, file=facts(), attempt=answered)
    ledger.record_fault(
        "mini",
        second,
        fault=Fault.TRANSIENT,
        message="no answer",
        next_attempt_at=NOW + DAY,
        attempt=Attempt(run_id="r", started_at=NOW - HOUR),
    )
    known = read("tube.example")
    assert known.due == len(ids()) - 2
    assert known.last_answer == pytest.approx(NOW - 5 * HOUR, abs=timedelta(seconds=1))

    before = datetime.now(UTC)
    pacer = Pacer(ledger.database, "tube.example", owner=new_owner())
    pacer.refused(pacer.admit(), "429 too many", retry_after_s=600)
    after = datetime.now(UTC)
    refused = read("tube.example", now=after + HOUR)
    assert refused.refusal == "429 too many"
    assert refused.refused_since is not None
    # PostgreSQL's clock may differ a little from this machine's.
    assert before - timedelta(seconds=5) <= refused.refused_since <= after + timedelta(seconds=5)
    # The other source of the collection may answer; and nobody has asked for a week.
    assert read("tube.example", "other.example", now=after + HOUR).refused_since is None
    assert read("tube.example", now=after + 7 * DAY).refused_since is None
