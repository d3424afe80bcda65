"""A source that refuses, or does not answer: who is blamed, and who waits for how long."""

from __future__ import annotations

import threading
import time

import pytest

from coinml.collection.collector import SourcePausedError
from coinml.collection.pacing import Pauses
from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, PENDING
from coinml.miniature.host import FlakyHost
from tests.helpers.collecting import Place


def test_a_short_refusal_is_waited_out_and_blames_nobody(place: Place) -> None:
    some = place.register(8)
    plan = {"source": [{"after_requests": 5, "answer": "429", "retry_after_s": 0.3, "times": 3}]}
    with FlakyHost(place.served, plan) as host:
        report = place.batch(host, some)
    assert set(report.downloaded) == set(some)
    assert report.waited_s > 0.5
    assert all(len(place.ledger.attempts("mini", video_id)) == 1 for video_id in some)


def test_a_long_refusal_ends_the_run_and_says_when_to_come_back(place: Place) -> None:
    some = place.register(6)
    plan = {"source": [{"after_requests": 4, "answer": "429", "retry_after_s": 500, "times": 1}]}
    with FlakyHost(place.served, plan) as host:
        start = time.monotonic()
        with pytest.raises(SourcePausedError, match="paused until") as caught:
            place.batch(host, some, max_wait_s=5)
        assert time.monotonic() - start < 5
        assert caught.value.retry_after_s == pytest.approx(500, abs=10)
        assert caught.value.report.downloaded == tuple(some[:2])
        assert set(caught.value.report.untried) == set(some[2:])
        # Nobody else asks meanwhile either.
        with pytest.raises(SourcePausedError):
            place.batch(host, some, run_id="r2", max_wait_s=5)
        assert len(host.requests()) == 5
    assert [place.states()[video_id] for video_id in some[2:]] == [PENDING] * 4
    assert not any(place.ledger.attempts("mini", video_id) for video_id in some[2:])
    assert place.ledger.due("mini") == some[2:]


def test_a_video_that_alone_is_forbidden_does_not_hold_up_the_rest(place: Place) -> None:
    some = place.register(12)
    with FlakyHost(place.served, {"videos": {some[0]: ["403"]}}) as host:
        report = place.run(host, some, max_wait_s=1)
    assert report.faults == {some[0]: Fault.BLOCKED}
    assert set(report.downloaded) == set(some[1:])
    assert some[0] not in place.ledger.due("mini")
    place.assert_consistent()


def test_a_batch_of_one_that_is_forbidden_ends(place: Place) -> None:
    some = place.register(2)
    with FlakyHost(place.served, {"videos": {some[0]: ["403"]}}) as host:
        assert place.run(host, some[:1]).faults == {some[0]: Fault.BLOCKED}
        assert place.run(host, some[1:]).downloaded == (some[1],)


def test_a_source_that_forbids_everything_is_paused(place: Place) -> None:
    some = place.register(6)
    with FlakyHost(place.served, {"videos": {one: ["403"] for one in some}}) as host:
        with pytest.raises(SourcePausedError):
            place.run(host, some, max_wait_s=1)
        assert len(host.requests()) < 2 * len(some)
    assert set(place.states().values()) == {PENDING}


def test_a_429_is_never_put_down_to_the_last_video_left(place: Place) -> None:
    some = place.register(4)
    with (
        FlakyHost(place.served, {"videos": {some[0]: ["429"]}}) as host,
        pytest.raises(SourcePausedError) as caught,
    ):
        place.run(host, some, max_wait_s=2)
    assert caught.value.report.untried == (some[0],)
    assert place.states() == {some[0]: PENDING, **dict.fromkeys(some[1:], DOWNLOADED)}


def test_a_source_that_cannot_be_reached_is_waited_for(place: Place) -> None:
    some = place.register(8)
    with FlakyHost(place.served) as host:
        port = host.port
        place.batch(host, some[:2])
    pauses = Pauses(unreachable_s=(0.2, 0.3))
    # Nobody listens there now, and after a while somebody does again.
    with pytest.raises(SourcePausedError):
        place.run(host, some, run_id="r2", max_wait_s=1, pauses=pauses)
    blamed = [one for one in some if place.states()[one] not in (PENDING, DOWNLOADED)]
    # One met a line that was cut, one was the first to find nobody there.
    assert len(blamed) <= 2
    back = FlakyHost(place.served, port=port)
    timer = threading.Timer(0.5, back.__enter__)
    timer.start()
    try:
        place.run(host, some, run_id="r3", max_wait_s=20, pauses=pauses, retry_now=True)
    finally:
        timer.join()
        back.stop()
    assert set(place.states().values()) == {DOWNLOADED}
    place.assert_consistent()
