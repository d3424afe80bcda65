"""Copying a local MLflow store to the database and artifact store of a server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from coinml.errors import InvalidInputError, LocalError
from coinml.registry.export import export_model
from coinml.registry.stored_encoders import encoder_folder, encoders_in_use, store_encoder
from coinml.tracking.copy_store import copy_store
from coinml.tracking.mlflow_store import MlflowStore

if TYPE_CHECKING:
    from tests.helpers.kitchen_dataset import Trained

CHAMPION = "models:/kitchen-task@champion"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Destination of the copy."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'there' / 'mlflow.db'}"
    server = request.getfixturevalue("postgres_server")
    return str(server.new_database()).replace("+psycopg", "")


def test_runs_models_and_artifacts_are_copied(
    trained: Trained, database: str, tmp_path: Path
) -> None:
    copied = copy_store(trained.store, database, str(tmp_path / "served"))
    there = MlflowStore(
        uri=database.replace("postgresql:", "postgresql+psycopg:"), artifact_root=Path()
    )
    here_runs, there_runs = runs_of(trained.store), runs_of(there)
    assert copied.runs == len(here_runs) >= 2
    assert {run: (data["params"], data["metrics"]) for run, data in here_runs.items()} == {
        run: (data["params"], data["metrics"]) for run, data in there_runs.items()
    }
    assert all(data["place"].startswith("mlflow-artifacts:/") for data in there_runs.values())
    assert not copied.elsewhere
    root = trained.store.artifact_root
    files = {one.relative_to(root) for one in root.rglob("*") if one.is_file()}
    assert copied.files == len(files) > 10
    for file in files:
        assert (tmp_path / "served" / file).read_bytes() == (root / file).read_bytes()


def test_the_copy_continues_with_new_ids(trained: Trained, database: str, tmp_path: Path) -> None:
    copy_store(trained.store, database, str(tmp_path / "served"))
    there = MlflowStore(
        uri=database.replace("postgresql:", "postgresql+psycopg:"),
        artifact_root=tmp_path / "served",
    )
    with there.run("afterwards", "first", tags={}) as run:
        run.metrics({"one": 1.0})
    assert there.read_run(run.run_id).data.metrics == {"one": 1.0}


@pytest.mark.stack
def test_a_server_shows_and_loads_what_was_copied(
    trained: Trained, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    monkeypatch.setenv("COINML_SERVE_ROOT", "/")

    copy_store(trained.store, database, str(tmp_path / "served"))
    with server(database, tmp_path) as url:
        there = MlflowStore(uri=url, artifact_root=Path())
        client = there.client()
        run_id = trained.reports["svm"].run_id
        names = [one.path for one in client.list_artifacts(run_id, "figures")]
        assert names
        picture = Path(client.download_artifacts(run_id, names[0], str(tmp_path)))
        assert picture.read_bytes().startswith(b"\x89PNG")
        video = trained.material.videos["Boil0______"]
        model = mlflow.pyfunc.load_model(CHAMPION)
        assert model.predict(pd.DataFrame({"video": [str(video)]}))["label"].tolist() == ["Boil"]
        (digest,) = encoders_in_use(there)
        export_model(there, CHAMPION, tmp_path / "exported")
        assert (tmp_path / "exported" / "artifacts" / "encoder" / "model.safetensors").is_file()
        # The server's encoder is used by new models, and another one is uploaded.
        files = trained.material.checkpoint.files
        before = set((tmp_path / "served").rglob("*"))
        model_id = str(client.create_logged_model(there.experiment("new")).model_id)
        assert store_encoder(there, model_id, files) == digest
        assert set((tmp_path / "served").rglob("*")) == before
        other = store_encoder(there, model_id, files[:1])
        with encoder_folder(other) as folder:
            assert (folder / files[0].name).read_bytes() == files[0].read_bytes()
        assert encoders_in_use(there) == {digest, other}


def test_a_store_with_a_live_run_is_refused(store: MlflowStore, tmp_path: Path) -> None:
    with (
        store.run("kitchen-task", "under way", tags={}),
        pytest.raises(InvalidInputError, match="under way is still running"),
    ):
        copy_store(store, f"sqlite:///{tmp_path / 'new.db'}", str(tmp_path / "served"))
    assert not (tmp_path / "new.db").exists()


def test_a_destination_with_content_is_refused(
    trained: Trained, database: str, tmp_path: Path
) -> None:
    copy_store(trained.store, database, str(tmp_path / "served"))
    with pytest.raises(InvalidInputError, match=r"does not exist yet|it already has runs"):
        copy_store(trained.store, database, str(tmp_path / "served"))


def test_artifacts_can_stay_in_their_folder(trained: Trained, tmp_path: Path) -> None:
    root = trained.store.artifact_root
    before = {one: one.stat().st_mtime_ns for one in root.rglob("*")}
    copied = copy_store(trained.store, f"sqlite:///{tmp_path / 'new.db'}", str(root))
    assert copied.files == sum(one.is_file() for one in before)
    assert {one: one.stat().st_mtime_ns for one in root.rglob("*")} == before
    there = MlflowStore(uri=f"sqlite:///{tmp_path / 'new.db'}", artifact_root=Path())
    assert all(data["place"].startswith("mlflow-artifacts:/") for data in runs_of(there).values())


def test_artifact_paths_of_a_moved_home_folder_are_found(
    store: MlflowStore, tmp_path: Path
) -> None:
    with store.run("kitchen-task", "early", tags={}) as run:
        run.json("note", {"text": "kept"})
    later = tmp_path / "later"
    later.mkdir()
    store.artifact_root.rename(later / "mlartifacts")
    (tmp_path / "mlflow.db").rename(later / "mlflow.db")
    moved_since = MlflowStore(
        uri=f"sqlite:///{later / 'mlflow.db'}", artifact_root=later / "mlartifacts"
    )
    copied = copy_store(moved_since, f"sqlite:///{tmp_path / 'new.db'}", str(tmp_path / "served"))
    assert not copied.elsewhere
    there = MlflowStore(uri=f"sqlite:///{tmp_path / 'new.db'}", artifact_root=Path())
    tail = runs_of(there)[run.run_id]["place"].removeprefix("mlflow-artifacts:/")
    assert (tmp_path / "served" / tail / "note.json").is_file()


def test_a_password_is_in_no_message(store: MlflowStore, tmp_path: Path) -> None:
    with pytest.raises(LocalError) as caught:
        copy_store(store, "postgresql://joe:s3cret@127.0.0.1:1/mlflow", str(tmp_path / "served"))
    assert "s3cret" not in str(caught.value)
    assert "joe:***@127.0.0.1:1" in str(caught.value)


def runs_of(store: MlflowStore) -> dict[str, dict[str, object]]:
    client = store.client()
    ids = [one.experiment_id for one in client.search_experiments()]
    return {
        run.info.run_id: {
            "params": run.data.params,
            "metrics": run.data.metrics,
            "place": run.info.artifact_uri,
        }
        for run in client.search_runs(ids)
    }


@contextlib.contextmanager
def server(database: str, folder: Path) -> Iterator[str]:
    """A tracking server, started with the command that `move-runs` prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": database.replace("postgresql:", "postgresql+psycopg:"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
                *("--artifacts-destination", str(folder / "served")),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            env=environment,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(400):
            assert process.poll() is None, (folder / "server.log").read_text()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.3)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)
