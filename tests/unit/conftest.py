"""Fixtures of the unit tests: ledger databases, MLflow stores, trained heads, a collector.

Ledger tests run on SQLite, and on PostgreSQL where it is installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from coinml.tracking.mlflow_store import MlflowStore
    from tests.helpers.kitchen_dataset import EmbeddedDataset, Trained
    from tests.helpers.local_collector import LocalCollector
    from tests.helpers.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, for each kind that the ledger supports."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; copying it is a hundred times faster than creating one."""
    from coinml.tracking.mlflow_store import MlflowStore

    folder = tmp_path_factory.mktemp("mlflow")
    store = MlflowStore(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder)
    store.client().search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def new_store(migrated_database: Path) -> Callable[[Path], MlflowStore]:
    """A function that creates an MLflow store in a folder."""
    from coinml.tracking.mlflow_store import MlflowStore

    def make(folder: Path) -> MlflowStore:
        shutil.copyfile(migrated_database, folder / "mlflow.db")
        return MlflowStore(
            uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder / "mlartifacts"
        )

    return make


@pytest.fixture
def store(new_store: Callable[[Path], MlflowStore], tmp_path: Path) -> MlflowStore:
    """An MLflow store without runs."""
    return new_store(tmp_path)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> EmbeddedDataset:
    """27 videos of three classes with their embeddings."""
    from tests.helpers.kitchen_dataset import make_embedded_dataset

    return make_embedded_dataset(tmp_path_factory.mktemp("material"), tiny_encoder_dir)


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[Path], MlflowStore],
    material: EmbeddedDataset,
) -> Trained:
    """Both heads trained on the material; one of them is the champion."""
    from tests.helpers.kitchen_dataset import train_both

    home = tmp_path_factory.mktemp("home")
    return train_both(home, new_store(home), material)


@pytest.fixture(scope="module")
def champion(trained: Trained) -> Any:
    """The champion of the trained heads, loaded by MLflow."""
    import mlflow

    trained.store.client()
    return mlflow.pyfunc.load_model("models:/kitchen-task@champion", suppress_warnings=True)


@pytest.fixture
def model_folder(trained: Trained, tmp_path: Path) -> Path:
    """The exported champion, for tests that change its files."""
    from coinml.registry.export import export_model

    export_model(trained.store, "models:/kitchen-task@champion", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """The folder of a host: sixty ids with the same short video."""
    from tests.helpers.local_collector import ids

    folder = tmp_path_factory.mktemp("served")
    first = make_video(folder / f"{ids(1)[0]}.mp4", seconds=0.4)
    for video_id in ids(60)[1:]:
        os.link(first, folder / f"{video_id}.mp4")
    return folder


@pytest.fixture
def collector(
    tmp_path: Path, served: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalCollector]:
    """A collector with short delays between retries."""
    from dataclasses import replace

    from coinml.faults.classification import POLICY, Fault
    from tests.helpers.local_collector import LocalCollector

    for fault in (Fault.TRANSIENT, Fault.CORRUPT):
        monkeypatch.setitem(POLICY, fault, replace(POLICY[fault], delays_in_run_s=(0.05,)))
    made = LocalCollector(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "videos", served)
    yield made
    made.ledger.close()
