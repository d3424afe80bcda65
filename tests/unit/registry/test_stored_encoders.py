"""An encoder is stored once for all versions, and an exported version contains it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import pytest

from coinml.errors import InvalidInputError, RegistryError
from coinml.registry.export import export_model
from coinml.registry.predict import predict_files
from coinml.registry.stored_encoders import (
    EXPERIMENT,
    encoder_folder,
    encoders_in_use,
    store_encoder,
)
from coinml.registry.versions import version_numbered
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import MODEL, Trained

CHAMPION = f"models:/{MODEL}@champion"

# The checkout, which the editable install put on the path, is removed first.
LOAD = """
import os, sys
sys.path = [entry for entry in sys.path if not os.path.isdir(os.path.join(entry, "coinml"))]
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
print(model.predict(pd.DataFrame({"video": sys.argv[2:]})).to_json(orient="records"))
"""


def files_below(folder: Path, name: str) -> list[Path]:
    return sorted(folder.rglob(name))


def encoders_of(store: MlflowStore) -> Path:
    return store.artifact_root / EXPERIMENT


def new_model(store: MlflowStore) -> str:
    return str(store.client().create_logged_model(store.experiment("some"), "model").model_id)


def test_the_versions_of_a_model_share_one_encoder(trained: Trained) -> None:
    versions = [
        version_numbered(trained.store, MODEL, report.version)
        for report in trained.reports.values()
    ]
    assert len(versions) == 2
    (weights,) = files_below(trained.home / "mlartifacts", "model.safetensors")
    checkpoint = trained.material.checkpoint
    assert weights.read_bytes() == checkpoint.weights.main.read_bytes()
    assert weights.parents[1] == encoders_of(trained.store)
    assert encoders_in_use(trained.store) == {weights.parent.name}
    for version in versions:
        model = trained.store.client().get_logged_model(version.source.removeprefix("models:/"))
        folder = Path(model.artifact_location.removeprefix("file://"))
        own = {file.name for file in folder.rglob("*")}
        assert "MLmodel" in own
        assert own.isdisjoint(file.name for file in checkpoint.files)


def test_an_exported_version_answers_without_a_tracking_server(
    trained: Trained, tmp_path: Path
) -> None:
    videos = [str(path) for path in list(trained.material.videos.values())[::9]]
    folder = tmp_path / "model"
    size_bytes = export_model(trained.store, CHAMPION, folder)
    assert size_bytes == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert list(tmp_path.iterdir()) == [folder]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    unset = ("PYTHONPATH", "COINML_HOME", "MLFLOW_TRACKING_URI")
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, str(folder), *videos],
        cwd=elsewhere,
        env={name: value for name, value in os.environ.items() if name not in unset},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    expected = predict_files(trained.store, CHAMPION, videos)
    assert [one["label"] for one in answers] == [one["label"] for one in expected]
    assert [one["label"] for one in answers] == ["Boil", "Cut", "Fry"]
    assert [one["score"] for one in answers] == pytest.approx([one["score"] for one in expected])
    assert list(elsewhere.iterdir()) == []


def test_a_model_away_from_its_tracking_server_says_what_it_needs(
    trained: Trained, tmp_path: Path, new_store: Callable[[Path], MlflowStore]
) -> None:
    trained.store.client()
    (digest,) = encoders_in_use(trained.store)
    folder = mlflow.artifacts.download_artifacts(CHAMPION, dst_path=str(tmp_path / "model"))
    other = MlflowStore(uri=f"sqlite:///{tmp_path / 'none.db'}", artifact_root=tmp_path)
    for uri in (new_store(tmp_path).uri, other.uri):
        mlflow.set_tracking_uri(uri)
        with pytest.raises(RegistryError, match=rf"{digest}.*MLFLOW_TRACKING_URI.*export"):
            mlflow.pyfunc.load_model(folder, suppress_warnings=True)
    assert not (tmp_path / "none.db").exists()


def test_a_folder_that_exists_is_not_written_over(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    with pytest.raises(InvalidInputError, match="exists already"):
        export_model(trained.store, CHAMPION, tmp_path)
    with pytest.raises(RegistryError, match="models:/nothing@champion"):
        export_model(trained.store, "models:/nothing@champion", tmp_path / "model")
    assert list(tmp_path.iterdir()) == [tmp_path / "notes"]


def test_several_threads_store_an_encoder_once(
    store: MlflowStore, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    files = sorted(tiny_encoder_dir.iterdir())
    models = [new_model(store) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        digests = set(pool.map(lambda model: store_encoder(store, model, files), models))
    (digest,) = digests
    assert [path.name for path in encoders_of(store).iterdir()] == [digest]
    with encoder_folder(digest) as folder:
        stored = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(json.loads(stored.pop("files.json"))) == set(stored)
    assert stored == {path.name: path.read_bytes() for path in files}
    # One byte more is another encoder.
    shutil.copytree(tiny_encoder_dir, tmp_path / "other")
    with (tmp_path / "other" / "config.json").open("a") as config:
        config.write("\n")
    assert store_encoder(store, models[0], sorted((tmp_path / "other").iterdir())) != digest


def test_an_encoder_without_its_list_of_files_is_stored_again(
    store: MlflowStore, tiny_encoder_dir: Path
) -> None:
    files = sorted(tiny_encoder_dir.iterdir())
    model = new_model(store)
    digest = store_encoder(store, model, files)
    folder = encoders_of(store) / digest
    (folder / "files.json").unlink()
    (folder / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(RegistryError, match=digest), encoder_folder(digest):
        pass
    assert store_encoder(store, model, files) == digest
    weights = (tiny_encoder_dir / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights


def test_an_encoder_is_in_use_while_a_model_needs_it(
    store: MlflowStore, tiny_encoder_dir: Path
) -> None:
    client = store.client()
    assert encoders_in_use(store) == set()
    first, second, failed = (new_model(store) for _ in range(3))
    digest = store_encoder(store, first, [tiny_encoder_dir / "config.json"])
    shared = store_encoder(store, second, sorted(tiny_encoder_dir.iterdir()))
    client.finalize_logged_model(second, "READY")
    client.set_logged_model_tags(failed, {"coinml.encoder": "0" * 12})
    client.finalize_logged_model(failed, "FAILED")
    assert encoders_in_use(store) == {digest, shared}
    client.delete_logged_model(first)
    assert encoders_in_use(store) == {shared}


def test_a_model_of_an_earlier_coinml_brings_its_own_encoder(
    model_folder: Path, trained: Trained, tmp_path: Path, new_store: Callable[[Path], MlflowStore]
) -> None:
    spec = json.loads((model_folder / "artifacts" / "spec.json").read_text())
    # Earlier models know nothing of stored encoders.
    del spec["encoder_digest"]
    (model_folder / "artifacts" / "spec.json").write_text(json.dumps(spec))
    (tmp_path / "home").mkdir()
    new_store(tmp_path / "home").client()
    loaded: Any = mlflow.pyfunc.load_model(str(model_folder), suppress_warnings=True)
    answers = loaded.predict([{"video": str(trained.material.videos["Cut0_______"])}])
    assert answers["label"].tolist() == ["Cut"]
