"""The events that flows emit, and the flows that events trigger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coinml.collection.options import CollectOptions, DownloadOptions
from coinml.embedding_sets.options import SetOptions
from coinml.miniature.host import FlakyHost
from coinml.registry.versions import list_versions
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.options import TrainOptions
from flows.collect import collect
from flows.embed import embed
from flows.reprobe import reprobe
from flows.reprocess import reprocess
from flows.train import train
from tasks import events

Coin = tuple[Path, list[str]]


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Name and payload of every event that coinml emits."""
    found: list[tuple[str, dict[str, Any]]] = []
    emit = events.emit_event

    def record(event: str, *, resource: dict[str, str], payload: dict[str, Any]) -> object:
        assert resource["prefect.resource.id"] == "coinml.dataset.toy"
        found.append((event, payload))
        return emit(event, resource=resource, payload=payload)

    monkeypatch.setattr(events, "emit_event", record)
    return found


def test_events_are_emitted_only_for_new_videos(
    home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path, emitted: list[Any]
) -> None:
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=1)
    back = coin[1][5]
    with FlakyHost(coin[0] / "videos", {"videos": {back: ["410", "ok"]}}) as host:
        source = CollectOptions(source=host.source)
        collect(selection, source.model_copy(update={"budget": 20}))
        collect(selection, source)
        collect(selection, source)
        assert [event for event, _ in emitted] == ["coinml.collected"] * 2
        assert sum(payload["new"] for _, payload in emitted) == 23
        assert Selection(**emitted[0][1]["selection"]) == selection
        assert emitted[0][1]["source"] == host.source

        emitted.clear()
        report = reprobe(selection, DownloadOptions(source=host.source))
        assert (report.asked, report.fetched, report.downloaded) == (1, 1, 24)
        assert [(event, payload["new"]) for event, payload in emitted] == [("coinml.collected", 1)]
        reprobe(selection, DownloadOptions(source=host.source))
        assert len(emitted) == 1

        emitted.clear()
        embed(selection, options)
        embed(selection, options)
        ((event, payload),) = emitted
        assert (event, payload["new"], payload["target"]) == ("coinml.embedded", 24, "task")
        assert SetOptions(**payload["set_options"]) == options

        # A subflow emits nothing: its parent processes the videos itself.
        emitted.clear()
        (Settings().videos_dir("toy") / f"{back}.mp4").unlink()
        summary = reprocess(
            selection, source, options, training=TrainOptions(heads=("svm",)), min_new=100
        )
        assert (summary.missing, summary.collected.fetched) == ((back,), 1)
        assert emitted == []


def test_training_waits_for_growth_and_an_interrupted_run_is_continued(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=1)
    how = {
        "set_options": options,
        "training": TrainOptions(heads=("svm",)),
        "min_new": 10,
        "ask_gate": True,
    }
    empty = train(collected, **how)
    assert str(empty) == "grown by 0 of 10: nothing to train"
    embed(collected, options)
    # The state that a run leaves which was killed before it asked the gate.
    cut_off = train(collected, **{**how, "ask_gate": False})
    assert (cut_off.grown, cut_off.verdicts) == (24, ())
    taken_up = train(collected, **how)
    assert taken_up.heads[0].reused
    assert [verdict.version for verdict in taken_up.verdicts] == [cut_off.heads[0].version]
    assert taken_up.verdicts[0].reason

    idle = train(collected, **how, return_state=True)
    assert idle.is_completed()
    assert (idle.name, idle.message) == ("Skipped", "grown by 0 of 10: nothing to train")
    # A new head was never trained on the set, so the whole set counts as growth.
    other = train(collected, **{**how, "training": TrainOptions(heads=("svm", "logreg"))})
    assert [head.reused for head in other.heads] == [True, False]
    store = MlflowStore(uri=Settings().tracking_uri, artifact_root=Settings().artifact_root)
    assert len(list_versions(store, "toy-task")) == 2
