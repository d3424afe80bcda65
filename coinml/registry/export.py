"""Exporting a registered version as a folder that loads without a tracking server."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from coinml.encoder.checkpoint import find_checkpoint
from coinml.errors import LocalError, NoModelError, RegistryError
from coinml.registry.stored_encoders import encoder_folder
from coinml.runtime.out_files import check_out_folder
from coinml.tracking.mlflow_errors import is_missing
from coinml.tracking.mlflow_store import MlflowStore

_ENCODER = "artifacts/encoder"


def export_model(store: MlflowStore, uri: str, folder: Path) -> int:
    """Write a registered model with its encoder to a folder; returns its size in bytes.

    `mlflow.pyfunc.load_model`, `mlflow models serve` and `mlflow models build-docker` take the
    folder on any machine.

    Args:
        store: Where the registry is.
        uri: The model, as `models:/mini-task@champion` or `models:/mini-task/3`.
        folder: Must not exist.

    Raises:
        InvalidInputError: As `check_out_folder`.
        NoModelError: There is no such model.
        RegistryError: It is not coinml's, or its encoder is gone.
        LocalError: The folder cannot be written.
    """
    check_out_folder(folder, new=True)
    store.client()
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as temporary:
            model = Path(temporary) / "model"
            model.mkdir()
            mlflow.artifacts.download_artifacts(uri, dst_path=str(model))
            _add_encoder(model, uri)
            size_bytes = sum(file.stat().st_size for file in model.rglob("*") if file.is_file())
            model.rename(folder)
    except MlflowException as err:
        kind = NoModelError if is_missing(err) else RegistryError
        raise kind(f"{uri} at {store.shown}: {store.masked(err)}") from err
    except OSError as err:
        raise LocalError(f"{folder}: cannot be written: {err}") from err
    return size_bytes


def _add_encoder(model: Path, uri: str) -> None:
    """Copy the encoder's files into a model, and name them in its `MLmodel`."""
    described = Model.load(str(model))
    artifacts = described.flavors.get("python_function", {}).get("artifacts", {})
    if "spec" not in artifacts or "head" not in artifacts:
        raise RegistryError(f"{uri}: is not a model that coinml has registered")
    if "encoder" in artifacts:
        return
    spec = json.loads((model / artifacts["spec"]["path"]).read_text())
    if spec.get("encoder_digest"):
        with encoder_folder(spec["encoder_digest"]) as stored:
            shutil.copytree(stored, model / _ENCODER)
    else:
        checkpoint = find_checkpoint(spec["encoder_ref"], revision=spec["revision"])
        (model / _ENCODER).mkdir()
        for file in checkpoint.files:
            shutil.copyfile(file, model / _ENCODER / file.name)
    artifacts["encoder"] = {"path": _ENCODER, "uri": _ENCODER}
    described.save(str(model / "MLmodel"))
