from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select

from coinml.collection.pacing import Pace, Pacer, Pauses, source_name
from coinml.ledger import Ledger, new_owner
from coinml.ledger.schema import sources
from coinml.runtime.addresses import is_loopback


@pytest.fixture
def database(ledger_url: str):
    with Ledger(ledger_url) as ledger:
        yield ledger.database


def pacer(database, **values: object) -> Pacer:
    pace = Pace(**values)  # type: ignore[arg-type]
    return Pacer(database, "tube.example", owner=new_owner(), pace=pace)


def test_a_source_is_named_by_its_host() -> None:
    assert source_name("https://www.YouTube.com/watch?v={id}") == "youtube.com"
    assert source_name("https://user:secret@tube.example:8080/{id}") == "tube.example:8080"
    assert is_loopback("http://127.0.0.1:8000/{id}.mp4")
    assert is_loopback("http://localhost/{id}.mp4")
    assert not is_loopback("https://www.youtube.com/watch?v={id}")


def test_without_a_rate_no_request_waits(database) -> None:
    free = pacer(database)
    assert [free.reserve() for _ in range(100)] == [0.0] * 100


def test_collectors_share_the_rate(database) -> None:
    # 10 per second after a burst of 3, for two together.
    one = pacer(database, rate_per_hour=36_000, burst=3)
    two = pacer(database, rate_per_hour=36_000, burst=3)
    waits: list[float] = []

    def take(who: Pacer) -> None:
        for _ in range(10):
            waits.append(who.reserve())

    threads = [threading.Thread(target=take, args=(who,)) for who in (one, two)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spent = time.monotonic() - start
    waits.sort()
    assert waits[:3] == [0.0] * 3
    # The last of 20 tokens is due 17 intervals of 0.1 s after the burst.
    assert waits[-1] == pytest.approx(1.7, abs=spent + 0.05)


def test_a_refusal_pauses_the_source_for_all_collectors(database) -> None:
    one, two = pacer(database), pacer(database)
    assert one.admit().kind == "go"
    one.refused(one.admit(), "429", retry_after_s=30)
    for who in (one, two):
        told = who.admit()
        assert (told.kind, told.reason) == ("wait", "429")
        assert told.wait_s == pytest.approx(30, abs=5)


def test_after_the_pause_one_collector_probes_and_its_success_ends_the_pause(database) -> None:
    one, two = pacer(database), pacer(database)
    one.refused(one.admit(), "429", retry_after_s=0)
    probe = two.admit()
    assert probe.kind == "probe"
    assert one.admit().kind == "wait"
    two.answered(probe)
    assert one.admit().kind == "go"


def test_an_undecided_probe_lets_another_collector_probe(database) -> None:
    one, two = pacer(database), pacer(database)
    one.refused(one.admit(), "429", retry_after_s=0)
    two.undecided(two.admit())
    assert one.admit().kind == "probe"


def test_pauses_grow_with_each_refusal_in_a_row(database) -> None:
    who = pacer(database, pauses=Pauses(by_strike_s=(0.0, 100.0, 1000.0)))
    who.refused(who.admit(), "429")
    probe = who.admit()
    assert probe.kind == "probe"
    assert who.refused(probe, "429") - time.time() == pytest.approx(100, abs=5)


def test_refusals_of_requests_sent_before_the_pause_do_not_lengthen_it(database) -> None:
    crowd = [pacer(database, pauses=Pauses(by_strike_s=(10.0, 1000.0))) for _ in range(5)]
    admissions = [who.admit() for who in crowd]
    for who, admission in zip(crowd, admissions, strict=True):
        until = who.refused(admission, "429")
        assert until - time.time() == pytest.approx(10, abs=5)


def test_a_first_suspected_refusal_makes_the_next_request_a_probe(database) -> None:
    who = pacer(database, pauses=Pauses(by_strike_s=(50.0, 1000.0)))
    who.refused(who.admit(), "403", suspicion=True)
    probe = who.admit()
    assert probe.kind == "probe"
    # The second refusal shows that the source refuses all videos.
    assert who.refused(probe, "403", suspicion=True) - time.time() == pytest.approx(50, abs=5)


def test_retry_after_is_limited(database) -> None:
    who = pacer(database, pauses=Pauses(longest_s=60.0))
    until = who.refused(who.admit(), "429", retry_after_s=1e9)
    assert until - time.time() == pytest.approx(60, abs=5)


@contextmanager
def clock_ahead(monkeypatch: pytest.MonkeyPatch, *, days: float) -> Iterator[None]:
    """Another clock for the collector: the machine's cannot be set. PostgreSQL has its own."""
    with monkeypatch.context() as patched:
        now = time.time
        patched.setattr("coinml.collection.pacing.time.time", lambda: now() + days * 86400)
        yield


def only_sqlite(database) -> None:
    if database.path is None:
        pytest.skip("the clock of PostgreSQL is the database's")


def test_a_clock_that_was_two_days_ahead_makes_no_request_wait_for_days(
    database, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_sqlite(database)
    who = pacer(database, rate_per_hour=300, burst=8)
    with clock_ahead(monkeypatch, days=2):
        for _ in range(20):
            who.reserve()
    # The bucket counts as empty, and the rate is kept from here on.
    assert [round(who.reserve()) for _ in range(3)] == [12, 24, 36]


def test_tokens_that_many_collectors_wait_for_are_believed(database) -> None:
    who = pacer(database, rate_per_hour=300, burst=8)
    waits = [who.reserve() for _ in range(100)]
    assert waits[-1] == pytest.approx(12 * 92, abs=5)


def test_pauses_and_probes_of_a_clock_that_was_ahead_are_over(
    database, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_sqlite(database)
    one, two = pacer(database), pacer(database)
    with clock_ahead(monkeypatch, days=2):
        one.refused(one.admit(), "429", retry_after_s=3600)
    probe = two.admit()
    assert probe.kind == "probe"
    # The next pause has the length of its own.
    assert two.refused(probe, "429", retry_after_s=40) - time.time() == pytest.approx(40, abs=5)
    with clock_ahead(monkeypatch, days=2):
        assert one.admit().kind == "probe"
    assert two.admit().kind == "wait"
    with clock_ahead(monkeypatch, days=0.01):
        # The lost probe of the clock that was ahead does not hold for two days.
        assert two.admit().kind == "probe"


def test_a_long_retry_after_is_believed_to_its_end(database) -> None:
    who = pacer(database)
    who.refused(who.admit(), "429", retry_after_s=1e9)
    assert who.admit().wait_s == pytest.approx(6 * 3600, abs=5)


def test_since_when_a_source_refuses_is_the_first_refusal_in_a_row(
    database, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_sqlite(database)
    who = pacer(database)

    def since_days() -> float:
        query = select(sources.c.blocked_since)
        found = database.read(lambda connection: connection.execute(query).scalar())
        return round((found - time.time()) / 86400, 1)

    for days in (0.0, 0.5, 1.0):
        with clock_ahead(monkeypatch, days=days):
            who.refused(who.admit(), "429", retry_after_s=30)
    assert since_days() == 0.0
    # Nobody asked for a week: whether it refused meanwhile is unknown.
    with clock_ahead(monkeypatch, days=8):
        who.refused(who.admit(), "429", retry_after_s=30)
    assert since_days() == 8.0
