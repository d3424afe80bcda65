"""What Prefect shows: names and messages of runs, progress, tables and figures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterName,
)
from prefect.client.schemas.objects import FlowRun

from coinml.collection.options import CollectOptions
from coinml.embedding_sets.options import SetOptions
from coinml.miniature.host import FlakyHost
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.options import TrainOptions
from flows.collect import collect
from flows.embed import embed
from flows.promote import promote
from flows.train import train
from tasks import watching

Coin = tuple[Path, list[str]]


def artifacts(key: str) -> list[Any]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        )


def run_named(name: str) -> FlowRun:
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name]))
        )
    return run


def message(run: FlowRun) -> str:
    assert run.state is not None
    # Also if more is due: triggers wait for this name.
    assert run.state.name == "Completed"
    return str(run.state.message)


def test_the_names_and_messages_of_runs_say_what_was_downloaded(home: Path, coin: Coin) -> None:
    part = Selection(dataset=str(coin[0] / "COIN.json"), name="seen")
    plan = {"source": [{"after_requests": 30, "answer": "429", "retry_after_s": 900, "times": 99}]}
    with FlakyHost(coin[0] / "videos", plan) as host:
        collect(part, CollectOptions(source=host.source, budget=5))
        run = run_named("collect seen 5/5")
        assert message(run).startswith(
            "completed in part, 19 still due: 5 of 24 videos are downloaded"
        )
        report = collect(part, CollectOptions(source=host.source, batch_size=4, max_wait_s=0.5))
        assert report.blocked_until is not None
        blocked = run_named(f"collect seen {report.fetched}/19")
        assert message(blocked).startswith(f"blocked until {report.blocked_until:%Y-%m-%d %H:%M}")
        collect.with_options(flow_run_name="seen by hand")(part, CollectOptions(source=host.source))
    # A name that the user has given is kept.
    assert "still due" in message(run_named("seen by hand"))
    (one,) = {a.flow_run_id for a in artifacts("progress-collect-seen")} & {run.id}
    assert one == run.id


def test_progress_is_published_while_a_stage_runs_and_when_it_has_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "EVERY_S", 0.05)
    seen: list[float] = []

    @flow
    def long() -> None:
        with watching.progress_shown("Toy set"), progress.stage("embed", 8):
            progress.advance("embed", 2)
            # Until the artifact is there.
            while not seen:
                seen.extend(float(one.data) for one in artifacts("progress-embed-toy-set"))
            progress.advance("embed", 4)

    long()
    (artifact,) = artifacts("progress-embed-toy-set")
    assert seen == [25.0]
    assert float(artifact.data) == 75.0
    assert artifact.description == "embed Toy set: 6 of 8"
    assert artifact.flow_run_id is not None


def test_a_flow_does_not_fail_when_progress_cannot_be_published(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("nobody there")

    monkeypatch.setattr(watching, "create_progress_artifact", refuse)
    done: list[int] = []

    @flow
    def stubborn() -> None:
        with watching.progress_shown("quiet"), progress.stage("embed", 1):
            progress.advance("embed")
            done.append(1)

    stubborn()
    assert done == [1]
    assert artifacts("progress-embed-quiet") == []


def test_heads_comparison_and_figures_are_published_in_prefect(
    home: Path, coin: Coin, tiny_encoder_dir: Path
) -> None:
    selection = Selection(dataset=str(coin[0] / "COIN.json"), name="shown")
    with FlakyHost(coin[0] / "videos") as host:
        collect(selection, CollectOptions(source=host.source))
    options = {"set_options": SetOptions(encoder=str(tiny_encoder_dir), clips=2)}
    embed(selection, **options)
    assert run_named("embed shown +24")
    summary = train(selection, training=TrainOptions(heads=("svm", "knn")), **options)
    again = train(selection, training=TrainOptions(heads=("svm", "knn")), **options)
    assert again.heads[0].reused
    scores = ", ".join(f"{r.head} {r.metrics['test_accuracy']:.3f}" for r in summary.heads)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[f"train shown: {scores}"]))
        )
    assert len(runs) == 2
    # Two artifacts under one key: its history.
    heads, comparisons = artifacts("heads-shown-task"), artifacts("comparison-shown-task")
    assert len(heads) == len(comparisons) == 2
    for report in summary.heads:
        assert any(f"`{report.run_id}`" in str(artifact.data) for artifact in heads)
    assert "McNemar p" in str(comparisons[0].data)
    store = MlflowStore(uri=Settings().tracking_uri, artifact_root=Settings().artifact_root)
    for key, run_id, name in (
        ("figure-comparison-shown-task", summary.heads[1].run_id, "comparison"),
        ("figure-confusion-svm-shown-task", summary.heads[0].run_id, "confusion"),
    ):
        address = str(artifacts(key)[0].data)
        kind, _, content = address.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content) == store.read_figure(run_id, name)
    verdicts = promote("shown-task")
    (artifact,) = artifacts("champion-shown-task")
    assert verdicts[0].reason in str(artifact.data)
    assert artifact.description == "no version passed the gate"
    assert artifacts("attrition-shown")[0].description == "24 of 24 videos of shown are downloaded"
    (decided,) = promote("shown-task", [verdicts[0].version], because="shown to *everybody*")
    assert decided.promoted
    # Prefect lists artifacts in no order.
    told = [str(one.data) for one in artifacts("champion-shown-task")]
    assert any(r"shown to \*everybody\*" in text for text in told)
