"""Several sources for one dataset: three real hosts on loopback, each with holes of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from coinml.collection.collector import BatchUnfinishedError, SourcePausedError
from coinml.collection.options import CollectOptions
from coinml.collection.pacing import Pace, Pauses
from coinml.collection.whole_dataset import collect, find_due, rounds, still_open
from coinml.data.records import Dataset, Video
from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, PENDING, Attempt
from coinml.miniature.host import FlakyHost
from tests.helpers.local_collector import LocalCollector, ids

LENGTH_S = 0.4


@pytest.fixture
def start(tmp_path: Path, served: Path) -> Iterator[Callable[..., FlakyHost]]:
    """A function that starts a host with some of the videos, and other videos under their names."""
    with ExitStack() as stack:

        def host(
            has: list[str],
            *,
            plan: dict[str, Any] | None = None,
            wrong: dict[str, Path] | None = None,
        ) -> FlakyHost:
            folder = tmp_path / f"host{len(list(tmp_path.glob('host*')))}"
            folder.mkdir()
            for video_id in has:
                os.link(
                    (wrong or {}).get(video_id, served / f"{video_id}.mp4"),
                    folder / f"{video_id}.mp4",
                )
            return stack.enter_context(FlakyHost(folder, plan or {}))

        yield host


def registered(collector: LocalCollector, count: int) -> list[str]:
    videos = tuple(
        Video(video_id=one, label="saw", subset="training", split="train", duration_s=LENGTH_S)
        for one in ids(count)
    )
    collector.ledger.register(Dataset(name="mini", videos=videos))
    return ids(count)


def run(
    collector: LocalCollector, hosts: list[FlakyHost], some: list[str], *args: Any, **values: Any
):
    sources = [host.source for host in hosts]
    return collector.run(hosts[0], some, *args, source=sources, duration_tolerance=0.1, **values)


def name(host: FlakyHost) -> str:
    return f"127.0.0.1:{host.port}"


def asked(collector: LocalCollector, video_id: str) -> list[tuple[str | None, str]]:
    return [(one.source, one.outcome) for one in collector.ledger.attempts("mini", video_id)]


def test_the_union_of_three_sources_comes(
    collector: LocalCollector, start: Callable[..., FlakyHost]
) -> None:
    some = registered(collector, 7)
    a, b, c = hosts = [start(some[:3]), start(some[2:5]), start([some[0], some[5]])]
    report = run(collector, hosts, some)
    assert set(report.downloaded) == set(some[:6])
    assert report.faults == {some[6]: Fault.GONE}
    rows = {row.video_id: row for row in collector.ledger.rows("mini")}
    brought = {video_id: row.source for video_id, row in rows.items()}
    # In order: what the first has does not come from the others.
    assert brought == dict(zip(some, [name(a)] * 3 + [name(b)] * 2 + [name(c), None], strict=True))
    assert rows[some[3]].url == f"{b.url}/{some[3]}.mp4"
    assert set(c.log()) == {some[5], some[6]}
    assert asked(collector, some[3]) == [(name(a), "gone"), (name(b), DOWNLOADED)]
    assert asked(collector, some[6]) == [(name(one), "gone") for one in hosts]
    assert all(name(one) in (rows[some[6]].message or "") for one in hosts)
    assert collector.ledger.sources("mini") == {name(a): 3, name(b): 2, name(c): 1}
    collector.assert_consistent()
    # Nobody is asked again, neither in this run nor in the next one.
    before = [host.requests() for host in hosts]
    for run_id in ("r1", "r2"):
        run(collector, hosts, some, run_id)
    assert [host.requests() for host in hosts] == before


def test_a_wrong_video_is_refused_and_taken_from_the_next_source(
    collector: LocalCollector,
    start: Callable[..., FlakyHost],
    make_video: Callable[..., Path],
    tmp_path: Path,
) -> None:
    some = registered(collector, 3)
    longer = make_video(tmp_path / "longer.mp4", seconds=3)
    a, b = hosts = [start(some, wrong={some[0]: longer, some[1]: longer}), start([some[0]])]
    report = run(collector, hosts, some)
    assert set(report.downloaded) == {some[0], some[2]}
    assert collector.ledger.row("mini", some[0]).source == name(b)
    assert asked(collector, some[0]) == [(name(a), "corrupt"), (name(b), DOWNLOADED)]
    message = collector.ledger.attempts("mini", some[0])[0].message or ""
    assert "lasts 3.0 s, but 0.4 s by the annotations" in message
    # Nobody has the right one: the wrong one is fetched once more, and put aside.
    assert collector.ledger.row("mini", some[1]).state == "corrupt"
    # The weeks after which the other one is asked again are not a time to wait for.
    assert collector.ledger.row("mini", some[1]).next_attempt_at is None
    assert asked(collector, some[1]) == [
        (name(a), "corrupt"),
        (name(b), "gone"),
        (name(a), "corrupt"),
    ]
    assert (collector.folder / ".quarantine" / f"{some[1]}.mp4").is_file()
    collector.assert_consistent()


@pytest.mark.parametrize("first", [True, False])
def test_a_source_that_refuses_everyone_delays_nobody(
    collector: LocalCollector, start: Callable[..., FlakyHost], first: bool
) -> None:
    some = registered(collector, 12)
    rule = {"after_requests": 0, "answer": "429", "retry_after_s": 900, "times": None}
    refuse = {"source": [rule]}
    blocked, has_some = start(some, plan=refuse), start(some[:10])
    hosts = [blocked, has_some] if first else [has_some, blocked]
    with pytest.raises(SourcePausedError) as caught:
        run(collector, hosts, some, max_wait_s=5)
    report = caught.value.report
    assert set(report.downloaded) == set(some[:10])
    assert (set(report.untried), report.waited_s) == (set(some[10:]), 0)
    # The breaker opened at the first refusal.
    assert len(blocked.requests()) == 1
    # Gone at one source is not lost while the other one has not answered.
    assert [collector.states()[one] for one in some[10:]] == [PENDING] * 2
    assert collector.ledger.due("mini") == some[10:]
    assert [asked(collector, one) for one in some[10:]] == [[(name(has_some), "gone")]] * 2
    assert "not asked yet" in (collector.ledger.row("mini", some[10]).message or "")


def test_a_short_pause_is_waited_out_after_the_others_were_asked(
    collector: LocalCollector, start: Callable[..., FlakyHost]
) -> None:
    some = registered(collector, 4)
    refuse = {"source": [{"after_requests": 0, "answer": "429", "retry_after_s": 0.5, "times": 1}]}
    busy, other = hosts = [start(some, plan=refuse), start(some[:3])]
    report = run(collector, hosts, some)
    assert set(report.downloaded) == set(some)
    brought = [collector.ledger.row("mini", one).source for one in some]
    assert brought == [name(other)] * 3 + [name(busy)]


def test_a_source_that_hangs_is_not_asked_for_each_video(
    collector: LocalCollector, start: Callable[..., FlakyHost]
) -> None:
    some = registered(collector, 12)
    hanging = start(some, plan={"videos": {one: ["stall"] for one in some}, "stall_s": 30})
    other = start(some)
    report = run(collector, [hanging, other], some)
    assert set(report.downloaded) == set(some)
    failed = [one for one in some if (name(hanging), "transient") in asked(collector, one)]
    assert len(failed) == 3
    collector.assert_consistent()


def test_a_video_is_lost_only_where_all_sources_say_so(
    collector: LocalCollector, start: Callable[..., FlakyHost]
) -> None:
    some = registered(collector, 3)
    plans = [
        {one: ["404"] for one in some},
        {some[0]: ["410"], some[1]: ["503"], some[2]: ["403"]},
    ]
    hosts = [start(some, plan={"videos": plan}) for plan in plans]
    run(collector, hosts, some, max_wait_s=1)
    rows = {row.video_id: row for row in collector.ledger.rows("mini")}
    assert [rows[one].state for one in some] == ["gone", "transient", "blocked"]
    now = datetime.now(UTC)
    assert (rows[some[0]].next_attempt_at or now) > now + timedelta(days=10)
    for one in some[1:]:
        assert now < (rows[one].next_attempt_at or now) < now + timedelta(hours=2)
    # The one that is temporarily away was tried as often as a run may; the other one once.
    assert sorted(asked(collector, some[1])) == sorted(
        [(name(hosts[0]), "gone")] + [(name(hosts[1]), "transient")] * 4
    )


def test_a_source_added_later_is_asked_for_what_the_others_did_not_have(
    collector: LocalCollector, start: Callable[..., FlakyHost]
) -> None:
    some = registered(collector, 4)
    a, b = start(some[:2]), start(some[2:3])
    run(collector, [a], some)
    assert collector.ledger.due("mini") == []
    dataset = Dataset(
        name="mini",
        videos=tuple(
            Video(video_id=one, label="saw", subset="training", split="train") for one in some
        ),
    )
    options = CollectOptions(source=(a.source, b.source))
    assert collector.ledger.status("mini").faults == {"gone": 2}
    assert set(find_due(dataset, collector.ledger, options)) == set(some[2:])
    # Also those that a budget leaves to a later run are possible again.
    assert collector.ledger.status("mini").pending == 2
    only = CollectOptions(source=(a.source, b.source), only=("transient",))
    assert find_due(dataset, collector.ledger, only) == []
    before = a.requests()
    run(collector, [a, b], some, "r2")
    assert a.requests() == before
    assert collector.states()[some[2]] == DOWNLOADED
    assert asked(collector, some[2]) == [(name(a), "gone"), (name(b), DOWNLOADED)]
    # Attempts that were recorded before sources were count for the first source.
    assert find_due(dataset, collector.ledger, options) == []


def test_attempts_without_a_source_are_those_of_the_first(
    collector: LocalCollector, start: Callable[..., FlakyHost]
) -> None:
    (one,) = some = registered(collector, 1)
    collector.ledger.record_fault(
        "mini",
        one,
        fault=Fault.GONE,
        message="removed",
        next_attempt_at=datetime.now(UTC) + timedelta(days=9),
        attempt=Attempt(run_id="old", started_at=datetime.now(UTC)),
    )
    a, b = start(some), start([])
    run(collector, [a, b], some)
    assert a.requests() == []
    assert collector.states()[one] == "gone"


def test_one_source_is_asked_at_a_time_where_a_later_call_asks_the_rest(
    collector: LocalCollector, start: Callable[..., FlakyHost]
) -> None:
    some = registered(collector, 4)
    plan = {"videos": {some[0]: ["503"], some[1]: ["404"]}}
    a, b = start(some, plan=plan), start(some[:1])
    sources = [a.source, b.source]
    assert rounds(sources) == [a.source, b.source, None]
    assert rounds(sources[:1]) == [None]

    def left(ask: str | None) -> list[str]:
        return still_open(
            collector.ledger,
            "mini",
            some,
            sources,
            ask=ask,
            run_id="r1",
            credentials=None,
            retry_now=(),
        )

    assert (left(a.source), left(b.source)) == (some, some)
    # Neither the retry nor the other source is this call's affair.
    report = collector.batch(a, some, source=sources, ask=a.source)
    assert (set(report.downloaded), b.requests()) == (set(some[2:]), [])
    assert collector.states()[some[0]] == PENDING
    assert (left(a.source), left(b.source)) == (some[:1], some[:2])
    with pytest.raises(BatchUnfinishedError):
        collector.batch(a, some[1:2] + some[:1], source=[*sources, "http://127.0.0.1:9/{id}.mp4"])


def test_a_dataset_is_collected_from_several_sources(
    collector: LocalCollector,
    start: Callable[..., FlakyHost],
    make_video: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """The length is checked, since these are no stand-ins of a single local server."""
    some = ids(5)
    dataset = Dataset(
        name="mini",
        videos=tuple(
            Video(video_id=one, label="saw", subset="training", split="train", duration_s=LENGTH_S)
            for one in some
        ),
    )
    longer = make_video(tmp_path / "longer.mp4", seconds=3)
    a, b = start(some[:3], wrong={some[1]: longer}), start(some[1:])
    status = collect(
        dataset,
        collector.ledger,
        folder=collector.folder,
        options=CollectOptions(source=[a.source, b.source], batch_size=2),
        pace=Pace(pauses=Pauses(by_strike_s=(0.2,))),
    )
    assert status.downloaded == 5
    brought = [collector.ledger.row("mini", one).source for one in some]
    assert brought == [name(a), name(b), name(a), name(b), name(b)]


def test_a_token_in_the_query_of_a_source_is_shown_nowhere(
    collector: LocalCollector, start: Callable[..., FlakyHost], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    some = registered(collector, 3)
    token = "hush-hush-hush"
    plan = {"source": [{"after_requests": 2, "answer": "429", "retry_after_s": 900}]}
    a, b = start(some[:1]), start(some[:2], plan=plan)
    sources = [f"{host.url}/{{id}}.mp4?token={token}" for host in (a, b)]
    with pytest.raises(SourcePausedError) as caught:
        collector.run(a, some, source=sources, max_wait_s=0)
    assert collector.ledger.row("mini", some[0]).url == f"{a.url}/{some[0]}.mp4?token=***"
    assert collector.ledger.row("mini", some[2]).state == PENDING
    collector.ledger.close()
    database = collector.ledger.database.path
    assert database is not None
    stored = b"".join(path.read_bytes() for path in database.parent.glob("ledger.db*"))
    # The host's own log shows what it was asked for.
    said = [one.getMessage() for one in caplog.records if one.name.startswith("coinml.collection")]
    assert any("token=***" in message for message in said)
    assert token not in str(caught.value) + "".join(said)
    assert token.encode() not in stored
