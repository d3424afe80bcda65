"""A source that refuses or is unreachable: which videos get a fault, and how long it is paused."""

from __future__ import annotations

import threading
import time

import pytest

from coinml.collection.collector import SourcePausedError
from coinml.collection.pacing import Pace, Pauses
from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, PENDING
from coinml.miniature.host import FlakyHost
from tests.helpers.local_collector import LocalCollector


def test_a_short_pause_is_waited_out_without_recording_faults(collector: LocalCollector) -> None:
    some = collector.register(8)
    plan = {"source": [{"after_requests": 5, "answer": "429", "retry_after_s": 0.3, "times": 3}]}
    with FlakyHost(collector.served, plan) as host:
        report = collector.batch(host, some)
    assert set(report.downloaded) == set(some)
    assert report.waited_s > 0.5
    assert all(len(collector.ledger.attempts("mini", video_id)) == 1 for video_id in some)


def test_a_long_pause_ends_the_run_and_reports_its_end(collector: LocalCollector) -> None:
    some = collector.register(6)
    plan = {"source": [{"after_requests": 4, "answer": "429", "retry_after_s": 500, "times": 1}]}
    with FlakyHost(collector.served, plan) as host:
        start = time.monotonic()
        with pytest.raises(SourcePausedError, match="paused until") as caught:
            collector.batch(host, some, max_wait_s=5)
        assert time.monotonic() - start < 5
        assert caught.value.retry_after_s == pytest.approx(500, abs=10)
        assert caught.value.report.downloaded == tuple(some[:2])
        assert set(caught.value.report.untried) == set(some[2:])
        # Other runs do not ask during the pause either.
        with pytest.raises(SourcePausedError):
            collector.batch(host, some, run_id="r2", max_wait_s=5)
        assert len(host.requests()) == 5
    assert [collector.states()[video_id] for video_id in some[2:]] == [PENDING] * 4
    assert not any(collector.ledger.attempts("mini", video_id) for video_id in some[2:])
    assert collector.ledger.due("mini") == some[2:]


def test_one_forbidden_video_does_not_stop_the_others(
    collector: LocalCollector,
) -> None:
    some = collector.register(12)
    with FlakyHost(collector.served, {"videos": {some[0]: ["403"]}}) as host:
        report = collector.run(host, some, max_wait_s=1)
    assert report.faults == {some[0]: Fault.BLOCKED}
    assert set(report.downloaded) == set(some[1:])
    assert some[0] not in collector.ledger.due("mini")
    collector.assert_consistent()


def test_a_batch_of_one_forbidden_video_ends(collector: LocalCollector) -> None:
    some = collector.register(2)
    with FlakyHost(collector.served, {"videos": {some[0]: ["403"]}}) as host:
        assert collector.run(host, some[:1]).faults == {some[0]: Fault.BLOCKED}
        assert collector.run(host, some[1:]).downloaded == (some[1],)


def test_a_source_that_forbids_everything_is_paused(collector: LocalCollector) -> None:
    some = collector.register(6)
    with FlakyHost(collector.served, {"videos": {one: ["403"] for one in some}}) as host:
        with pytest.raises(SourcePausedError):
            collector.run(host, some, max_wait_s=1)
        assert len(host.requests()) < 2 * len(some)
    assert set(collector.states().values()) == {PENDING}


def test_a_429_for_the_last_video_pauses_the_source(collector: LocalCollector) -> None:
    some = collector.register(4)
    with (
        FlakyHost(collector.served, {"videos": {some[0]: ["429"]}}) as host,
        pytest.raises(SourcePausedError) as caught,
    ):
        collector.run(host, some, max_wait_s=2)
    assert caught.value.report.untried == (some[0],)
    assert collector.states() == {some[0]: PENDING, **dict.fromkeys(some[1:], DOWNLOADED)}


def test_an_unreachable_source_is_waited_for(collector: LocalCollector) -> None:
    some = collector.register(8)
    with FlakyHost(collector.served) as host:
        port = host.port
        collector.batch(host, some[:2])
    pace = Pace(pauses=Pauses(unreachable_s=(0.2, 0.3)))
    # Nothing listens on the port now; the host comes back later.
    with pytest.raises(SourcePausedError):
        collector.run(host, some, run_id="r2", max_wait_s=1, pace=pace)
    failed = [one for one in some if collector.states()[one] not in (PENDING, DOWNLOADED)]
    # At most one whose connection was cut, and the first that could not connect.
    assert len(failed) <= 2
    back = FlakyHost(collector.served, port=port)
    timer = threading.Timer(0.5, back.__enter__)
    timer.start()
    try:
        collector.run(host, some, run_id="r3", max_wait_s=20, pace=pace, retry_now=True)
    finally:
        timer.join()
        back.stop()
    assert set(collector.states().values()) == {DOWNLOADED}
    collector.assert_consistent()
