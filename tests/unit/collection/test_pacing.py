from __future__ import annotations

import threading
import time

import pytest

from coinml.collection.pacing import Pace, Pacer, Pauses, source_name
from coinml.ledger import Ledger, new_owner
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
