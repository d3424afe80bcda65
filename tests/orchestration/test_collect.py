"""The collect flow against the flaky host, with real yt-dlp."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency
from pydantic import ValidationError

from coinml.collection.options import CollectOptions
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError, LocalError
from coinml.ledger import Ledger
from coinml.miniature.host import FlakyHost
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from flows.collect import collect
from flows.embed import embed
from tasks.limits import BATCHES, MOST_BATCHES

Coin = tuple[Path, list[str]]


@pytest.mark.parametrize("batch_size", [1, 7])
def test_available_videos_are_downloaded_and_the_others_get_their_fault(
    home: Path, coin: Coin, selection: Selection, batch_size: int
) -> None:
    folder, ids = coin
    plan = {
        "videos": {ids[1]: ["404"], ids[2]: ["503", "ok"], ids[3]: ["ok", "reset", "ok"]},
        "source": [{"after_requests": 20, "answer": "429", "retry_after_s": 1, "times": 2}],
    }
    with FlakyHost(folder / "videos", plan) as host:
        options = CollectOptions(source=host.source, batch_size=batch_size)
        report = collect(selection, options)
        asked = host.log()
        again = collect(selection, options)
        assert host.log() == asked
    assert (report.downloaded, report.fetched, report.total) == (23, 23, 24)
    assert report.faults == {"gone": 1}
    assert report.complete
    assert (again.downloaded, again.asked) == (23, 0)
    with Ledger(Settings().ledger_url) as ledger:
        rows = ledger.rows("toy")
        assert ledger.row("toy", ids[2]).attempts == 2
    for row in rows:
        assert (row.path is not None and Path(row.path).is_file()) == (row.state == "downloaded")
    videos = Settings().videos_dir("toy")
    assert sorted(p.stem for p in videos.glob("*.mp4")) == [i for i in ids if i != ids[1]]


def test_a_budget_limits_a_run_and_the_next_run_continues(
    home: Path, coin: Coin, selection: Selection
) -> None:
    with FlakyHost(coin[0] / "videos") as host:
        first = collect(selection, CollectOptions(source=host.source, budget=5))
        assert (first.fetched, first.still_due, first.complete) == (5, 19, False)
        second = collect(selection, CollectOptions(source=host.source))
        assert (second.fetched, second.still_due) == (19, 0)
        assert set(host.log().values()) == {2}


def test_a_long_pause_of_the_source_ends_the_run_and_the_report_says_until_when(
    home: Path, coin: Coin, selection: Selection
) -> None:
    plan = {"source": [{"after_requests": 8, "answer": "429", "retry_after_s": 900, "times": 99}]}
    with FlakyHost(coin[0] / "videos", plan) as host:
        report = collect(
            selection, CollectOptions(source=host.source, batch_size=6, max_wait_s=0.5)
        )
    assert report.blocked_until is not None
    assert not report.complete
    assert 0 < report.downloaded < 24
    # The source was at fault and no video: those that were not tried are still pending.
    with Ledger(Settings().ledger_url) as ledger:
        assert ledger.status("toy").pending == report.still_due
    assert "refuses until" in str(report)


def test_the_state_of_the_flow_run_has_the_report_as_its_message(
    home: Path, coin: Coin, selection: Selection
) -> None:
    with FlakyHost(coin[0] / "videos") as host:
        collect.with_options(flow_run_name="told")(selection, CollectOptions(source=host.source))
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=["told"]))
        )
    assert run.state is not None
    assert run.state.name == "Completed"
    assert run.state.message == "24 of 24 videos are downloaded, 24 of them new"


def test_a_run_that_has_nothing_to_do_is_named_skipped_and_says_why(
    home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path
) -> None:
    with FlakyHost(coin[0] / "videos") as host:
        options = CollectOptions(source=host.source, only=("gone",), reprobe=True)
        early = collect(selection, options, return_state=True)
        collect(selection, CollectOptions(source=host.source))
        idle = collect(selection, CollectOptions(source=host.source), return_state=True)
    assert (early.name, early.type) == ("Skipped", StateType.COMPLETED)
    assert early.message == (
        "nothing was due now, 24 later: 0 of 24 videos are downloaded, 0 of them new"
    )
    assert (idle.name, idle.type) == ("Skipped", StateType.COMPLETED)
    assert idle.message == "nothing was due: 24 of 24 videos are downloaded, 0 of them new"
    # Callers of the flow get its result as before.
    assert idle.result().downloaded == 24
    made = SetOptions(encoder=str(tiny_encoder_dir), clips=1)
    assert embed(selection, made, return_state=True).name == "Completed"
    idle = embed(selection, made, return_state=True)
    assert (idle.name, idle.type) == ("Skipped", StateType.COMPLETED)
    assert str(idle.message).startswith("nothing was new: 24 videos in set")
    assert idle.result().embedded == 0


def test_the_attrition_table_is_an_artifact_with_a_stable_key(home: Path, coin: Coin) -> None:
    selection = Selection(dataset=str(coin[0] / "COIN.json"), name="Toy_Set.2")
    with FlakyHost(coin[0] / "videos", {"videos": {coin[1][1]: ["404"]}}) as host:
        collect(selection, CollectOptions(source=host.source, budget=10))
        collect(selection, CollectOptions(source=host.source))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["attrition-toy-set-2"]))
        )
    assert len(found) == 2
    texts = {str(artifact.data) for artifact in found}
    assert any(
        "23 of 24 videos are downloaded" in text and "| gone | 1 |" in text for text in texts
    )
    assert all("| BoilEgg | 12 |" in text for text in texts)


@pytest.fixture
def ceiling() -> Iterator[Callable[[int], None]]:
    """A function that sets the limit on parallel batches on the test server."""

    def limit_to(limit: int) -> None:
        with get_client(sync_client=True) as client:
            client.upsert_global_concurrency_limit_by_name(BATCHES, limit)

    yield limit_to
    limit_to(MOST_BATCHES)


def test_the_limit_on_parallel_batches_is_created_and_respected(
    home: Path, coin: Coin, selection: Selection, ceiling: Callable[[int], None]
) -> None:
    plan = {"videos": {video_id: ["slow"] for video_id in coin[1]}, "slow_s": 0.2}
    with FlakyHost(coin[0] / "videos", plan) as host:
        collect(selection, CollectOptions(source=host.source, batch_size=1, budget=6))
        together = [video_id for video_id, _ in host.requests()]
        with get_client(sync_client=True) as client:
            made = client.read_global_concurrency_limit_by_name(BATCHES)
        assert (made.limit, made.active_slots) == (MOST_BATCHES, 0)
        ceiling(1)
        collect(selection, CollectOptions(source=host.source, batch_size=1, budget=6))
        alone = [video_id for video_id, _ in host.requests()][len(together) :]
    # Each video takes two requests; with one batch at a time, they are consecutive.
    assert alone[::2] == alone[1::2]
    assert together[::2] != together[1::2]


def test_a_run_waits_until_other_runs_release_their_slots(
    home: Path, coin: Coin, selection: Selection, ceiling: Callable[[int], None]
) -> None:
    ceiling(1)
    with FlakyHost(coin[0] / "videos") as host, ThreadPoolExecutor(1) as pool:
        with concurrency(BATCHES, occupy=1):
            run = pool.submit(collect, selection, CollectOptions(source=host.source, budget=2))
            time.sleep(4)
            assert host.log() == {}
        assert run.result().fetched == 2


def test_the_files_of_a_folder_are_adopted_in_place(home: Path, coin: Coin, tmp_path: Path) -> None:
    for number, name in enumerate(sorted(p.name for p in (coin[0] / "videos").iterdir())):
        target = tmp_path / "clips" / "ab"[number % 2] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((coin[0] / "videos" / name).read_bytes())
    (tmp_path / "clips" / "a" / "broken.mp4").write_bytes(b"no video")
    report = collect(Selection(dataset=f"folder:{tmp_path / 'clips'}"))
    assert (report.total, report.downloaded, report.faults) == (25, 24, {"corrupt": 1})
    with Ledger(Settings().ledger_url) as ledger:
        row = ledger.row("clips", "a/-video00000")
    assert row.path == str(tmp_path / "clips" / "a" / "-video00000.mp4")


def test_a_local_fault_stops_the_run_and_no_video_is_blamed(
    home: Path, coin: Coin, selection: Selection
) -> None:
    videos = Settings().videos_dir("toy")
    videos.parent.mkdir(parents=True)
    videos.write_text("a file where the folder should be")
    with FlakyHost(coin[0] / "videos") as host, pytest.raises(LocalError):
        collect(selection, CollectOptions(source=host.source))
    with Ledger(Settings().ledger_url) as ledger:
        assert ledger.status("toy").pending == 24


def test_a_run_can_be_limited_to_faults_and_can_ignore_the_retry_schedule(
    home: Path, coin: Coin, selection: Selection
) -> None:
    folder, ids = coin
    gone, flaky, refused = ids[1], ids[2], ids[3]
    plan = {"videos": {gone: ["404", "ok"], flaky: ["503"] * 4 + ["ok"], refused: ["403"]}}
    with FlakyHost(folder / "videos", plan) as host:
        report = collect(selection, CollectOptions(source=host.source))
        assert report.faults == {"gone": 1, "transient": 1, "blocked": 1}
        asked = host.log()

        def asked_now(**how: object) -> set[str]:
            nonlocal asked
            before = asked
            collect(selection, CollectOptions(source=host.source, **how))
            asked = host.log()
            return {one for one in asked if asked[one] != before.get(one)}

        assert asked_now() == set()
        assert asked_now(only=("transient",)) == set()
        assert asked_now(only=("blocked",), retry_now=True) == {refused}
        assert asked_now(retry_now=True) == {refused, flaky}
        assert asked_now(only=("transient",), reprobe=True) == set()
        assert asked_now(reprobe=True) == {gone}
    with Ledger(Settings().ledger_url) as ledger:
        assert ledger.status("toy").faults == {"blocked": 1}


def test_an_unknown_fault_is_refused() -> None:
    with pytest.raises(ValidationError, match="only dead: allowed are pending, transient"):
        CollectOptions(only=("dead",))


def test_a_source_without_a_placeholder_is_refused_before_any_request(
    home: Path, selection: Selection
) -> None:
    with pytest.raises(InvalidInputError, match="id"):
        collect(selection, CollectOptions(source="http://127.0.0.1:1/no-placeholder"))
