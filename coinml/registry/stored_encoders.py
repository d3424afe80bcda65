"""Encoders of registered models: each is stored once, and the models name it by its digest.

An encoder's files are in a folder `<digest>` below the artifact location of the experiment
`coinml-encoders`, which has no runs. A model finds it through the tracking server, so it needs no
change when a store is moved or copied to a server. `files.json` is written last: a folder without
it is incomplete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, LoggedModelStatus, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from coinml.errors import RegistryError

if TYPE_CHECKING:
    from coinml.tracking.mlflow_store import MlflowStore

EXPERIMENT = "coinml-encoders"
"""Name of the experiment below whose artifact location the encoders are."""

ENCODER_TAG = "coinml.encoder"
"""Tag of a logged model: the digest of the stored encoder that it needs."""

_FILES = "files.json"
_ABOUT = (
    "Encoders of registered models, each in a folder named by its digest. It has no runs; the "
    "models of other experiments need its artifacts."
)


def store_encoder(store: MlflowStore, model_id: str, files: Sequence[Path]) -> str:
    """Store an encoder among a store's artifacts, unless it is there; return its digest.

    The model gets the tag `ENCODER_TAG` first, so that the encoder is in use once it is stored.

    Args:
        store: Where the artifacts are.
        model_id: The logged model that needs the encoder.
        files: The checkpoint's files.
    """
    client = store.client()
    experiment = client.get_experiment(store.experiment(EXPERIMENT, description=_ABOUT))
    repository = _repository(experiment)
    hashes = _hashes(files)
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:12]
    client.set_logged_model_tags(model_id, {ENCODER_TAG: digest})
    if not _is_complete(repository, digest):
        local = isinstance(repository, LocalArtifactRepository)
        root = Path(repository.artifact_dir) if local else None
        if root is not None:
            root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".") as temporary:
            folder = Path(temporary) / digest
            folder.mkdir()
            for file in files:
                shutil.copyfile(file, folder / file.name)
            if root is None:
                repository.log_artifacts(str(folder), digest)
            (folder / _FILES).write_text(json.dumps(hashes, indent=2, sort_keys=True))
            if root is None:
                repository.log_artifact(str(folder / _FILES), digest)
            else:
                _rename(folder, root / digest)
    return digest


@contextmanager
def encoder_folder(digest: str) -> Iterator[Path]:
    """Yields the folder of a stored encoder, downloaded unless it is on this machine.

    It is looked up at MLflow's tracking URI of this process, which is that of the model.

    Raises:
        RegistryError: There is no such encoder.
    """
    uri = mlflow.get_tracking_uri()
    # MLflow would create the database.
    known = not uri.startswith("sqlite:///") or Path(uri.removeprefix("sqlite:///")).is_file()
    experiment = MlflowClient().get_experiment_by_name(EXPERIMENT) if known else None
    repository = None if experiment is None else _repository(experiment)
    if repository is None or not _is_complete(repository, digest):
        raise RegistryError(
            f"this model needs the encoder {digest}, which MLflow does not have among the "
            f"artifacts of the experiment {EXPERIMENT!r}: set MLFLOW_TRACKING_URI to the server "
            "that the model is from, or load a copy that `coinml registry export` made"
        )
    if isinstance(repository, LocalArtifactRepository):
        yield Path(repository.artifact_dir) / digest
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(repository.download_artifacts(digest, temporary))


def encoders_in_use(store: MlflowStore) -> set[str]:
    """Digests of the stored encoders that a model of any experiment needs.

    A model counts from before its encoder is stored until it is deleted (`delete_logged_model`),
    whether or not a version points at it. One whose registration failed does not count.
    """
    from coinml.registry.versions import all_results

    client = store.client()
    experiments = [
        str(one.experiment_id)
        for one in all_results(client.search_experiments, view_type=ViewType.ALL)
    ]
    return {
        model.tags[ENCODER_TAG]
        for model in all_results(client.search_logged_models, experiments)
        if ENCODER_TAG in model.tags and model.status != LoggedModelStatus.FAILED
    }


def _hashes(files: Sequence[Path]) -> dict[str, str]:
    found = {}
    for path in files:
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _repository(experiment: Experiment) -> Any:
    # `Any`, because MLflow's repositories have no types.
    return get_artifact_repository(experiment.artifact_location)


def _is_complete(repository: Any, digest: str) -> bool:
    return any(one.path == f"{digest}/{_FILES}" for one in repository.list_artifacts(digest))


def _rename(folder: Path, final: Path) -> None:
    """Give a complete folder its final name; another process may have stored the same first."""
    try:
        folder.rename(final)
    except OSError:
        if (final / _FILES).is_file():
            return
        # What is left of a deletion that was interrupted.
        shutil.rmtree(final, ignore_errors=True)
        folder.rename(final)
