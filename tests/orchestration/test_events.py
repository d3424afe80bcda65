"""What flows tell to the deployments that wait, and what they do when they are told."""

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
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Every event of ours, with what it says."""
    found: list[tuple[str, dict[str, Any]]] = []
    emit = events.emit_event

    def record(event: str, *, resource: dict[str, str], payload: dict[str, Any]) -> object:
        assert resource["prefect.resource.id"] == "coinml.dataset.toy"
        found.append((event, payload))
        return emit(event, resource=resource, payload=payload)

    monkeypatch.setattr(events, "emit_event", record)
    return found


def test_only_what_is_new_is_told(
    home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path, told: list[Any]
) -> None:
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=1)
    back = coin[1][5]
    with FlakyHost(coin[0] / "videos", {"videos": {back: ["410", "ok"]}}) as host:
        source = CollectOptions(source=host.source)
        collect(selection, source.model_copy(update={"budget": 20}))
        collect(selection, source)
        collect(selection, source)
        assert [event for event, _ in told] == ["coinml.collected"] * 2
        assert sum(payload["new"] for _, payload in told) == 23
        assert Selection(**told[0][1]["selection"]) == selection
        assert told[0][1]["source"] == host.source

        told.clear()
        report = reprobe(selection, DownloadOptions(source=host.source))
        assert (report.asked, report.fetched, report.downloaded) == (1, 1, 24)
        assert [(event, payload["new"]) for event, payload in told] == [("coinml.collected", 1)]
        reprobe(selection, DownloadOptions(source=host.source))
        assert len(told) == 1

        told.clear()
        embed(selection, options)
        embed(selection, options)
        ((event, payload),) = told
        assert (event, payload["new"], payload["target"]) == ("coinml.embedded", 24, "task")
        assert SetOptions(**payload["set_options"]) == options

        # Within another flow nobody is told: it goes on with them itself.
        told.clear()
        (Settings().videos_dir("toy") / f"{back}.mp4").unlink()
        summary = reprocess(
            selection, source, options, training=TrainOptions(heads=("svm",)), min_new=100
        )
        assert (summary.missing, summary.collected.fetched) == ((back,), 1)
        assert told == []


def test_training_waits_for_growth_and_takes_up_what_was_cut_off(
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
    # As a run leaves it that was killed before it could ask the gate.
    cut_off = train(collected, **{**how, "ask_gate": False})
    assert (cut_off.grown, cut_off.verdicts) == (24, ())
    taken_up = train(collected, **how)
    assert taken_up.heads[0].reused
    assert [verdict.version for verdict in taken_up.verdicts] == [cut_off.heads[0].version]
    assert taken_up.verdicts[0].reason

    idle = train(collected, **how, return_state=True)
    assert (idle.name, idle.message) == ("Completed", "grown by 0 of 10: nothing to train")
    # A head that is new to the set has seen nothing of it.
    other = train(collected, **{**how, "training": TrainOptions(heads=("svm", "logreg"))})
    assert [head.reused for head in other.heads] == [True, False]
    store = MlflowStore(uri=Settings().tracking_uri, artifact_root=Settings().artifact_root)
    assert len(list_versions(store, "toy-task")) == 2
