"""Checking, before long work, that its runs can be recorded in MLflow."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import requests
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from coinml.errors import LocalError, TransientError
from coinml.runtime.addresses import parts_of
from coinml.tracking.mlflow_errors import is_away
from coinml.tracking.mlflow_store import MlflowStore

CHECKED = "coinml.checked"
"""Tag of an experiment: when a flow last checked that it can write to it."""

_LONGEST = 300


def check_store(store: MlflowStore, experiment: str) -> None:
    """Check that runs can be recorded in an experiment, by creating it or writing a tag to it.

    A store that only answers is not enough: its database may be read-only, a server may let this
    user read only, and the experiment may be deleted. A local folder of artifacts is tried with a
    file.

    Args:
        store: Where the runs will go.
        experiment: Its name; it is created if there is none.

    Raises:
        InvalidInputError: The store is a folder.
        LocalError: It refuses, is not MLflow, or the experiment is deleted.
        TransientError: It does not answer.
    """
    try:
        client = store.client()
        experiment_id = store.experiment(experiment)
        client.set_experiment_tag(experiment_id, CHECKED, datetime.now(UTC).isoformat())
        found = client.get_experiment(experiment_id)
        if not found.experiment_id:
            # A server that answers every request with a JSON document.
            raise LocalError(f"{store.shown} does not answer like MLflow; see MLFLOW_TRACKING_URI")
        if found.artifact_location.startswith("file:"):
            folder = Path(unquote(parts_of(found.artifact_location).path))
            folder.mkdir(parents=True, exist_ok=True)
            # The file has no name, and is gone at once.
            tempfile.TemporaryFile(dir=folder).close()
    # ImportError: the driver of a database is not installed.
    except (
        MlflowException,
        requests.RequestException,
        SQLAlchemyError,
        ImportError,
        OSError,
    ) as err:
        said = " ".join(store.masked(err).split())[:_LONGEST]
        if is_away(err):
            raise TransientError(f"{store.shown} does not answer: {said}") from err
        raise LocalError(
            f"runs cannot be recorded in MLflow at {store.shown} (MLFLOW_TRACKING_URI): {said}"
        ) from err
