"""Flows refuse an MLflow that cannot take their runs before they collect, embed or train."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coinml.collection.options import CollectOptions
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError, LocalError
from coinml.miniature.host import FlakyHost
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.studies.run_study import experiment_name
from coinml.tracking.mlflow_store import home_store
from coinml.training.train_head import model_name
from flows.pipeline import pipeline
from flows.reprocess import reprocess
from flows.study import study
from flows.train import train

Coin = tuple[Path, list[str]]


def delete_experiment(name: str) -> None:
    store = home_store(Settings())
    store.client().delete_experiment(store.experiment(name))


@pytest.mark.parametrize("flow", [pipeline, reprocess])
def test_nothing_is_collected_if_the_experiment_is_deleted(
    flow: Callable[..., Any], home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path
) -> None:
    delete_experiment(model_name("toy"))
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=2)
    with FlakyHost(coin[0] / "videos") as host:
        with pytest.raises(LocalError, match=r"is deleted .* mlflow experiments restore -x \d"):
            flow(selection, CollectOptions(source=host.source), set_options=options)
        assert host.log() == {}


def test_training_and_studies_are_refused_too(
    home: Path, selection: Selection, tiny_encoder_dir: Path
) -> None:
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=2)
    delete_experiment(model_name("toy"))
    with pytest.raises(LocalError, match="experiment 'toy-task' is deleted"):
        train(selection, options)
    name = experiment_name("toy")
    delete_experiment(name)
    with pytest.raises(LocalError, match=f"experiment '{name}' is deleted"):
        study("data", selection, options)


def test_a_folder_is_no_store(
    home: Path, coin: Coin, selection: Selection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    with FlakyHost(coin[0] / "videos") as host:
        with pytest.raises(InvalidInputError, match="no longer keeps runs in a folder"):
            pipeline(selection, CollectOptions(source=host.source))
        assert host.log() == {}
    assert not (tmp_path / "mlruns").exists()
