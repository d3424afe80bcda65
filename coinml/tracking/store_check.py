"""Checking, before long work, that its runs can be recorded in MLflow."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

_SHORT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
"""MLflow's client has these limits during the check, unless the user has set others."""

_LIMITING = threading.Lock()


def check_store(store: MlflowStore, experiment: str) -> None:
    """Check that runs can be recorded in an experiment, by creating it or writing a tag to it.

    A store that only answers is not enough: its database may be read-only, a server may let this
    user read only, and the experiment may be deleted. A local folder of artifacts is tried with a
    file. A server is asked without MLflow's retries, which take minutes: no work is lost yet.

    Args:
        store: Where the runs will go.
        experiment: Its name; it is created if there is none.

    Raises:
        InvalidInputError: The store is a folder.
        LocalError: It refuses, is not MLflow, or the experiment is deleted.
        TransientError: It does not answer.
    """
    try:
        with _short_limits():
            location = _write_to(store, experiment)
        if location.startswith("file:"):
            folder = Path(unquote(parts_of(location).path))
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


def _write_to(store: MlflowStore, experiment: str) -> str:
    """Write a tag to the experiment; where its artifacts go, as a URI."""
    client = store.client()
    experiment_id = store.experiment(experiment)
    client.set_experiment_tag(experiment_id, CHECKED, datetime.now(UTC).isoformat())
    found = client.get_experiment(experiment_id)
    if not found.experiment_id:
        # A server that answers every request with a JSON document.
        raise LocalError(f"{store.shown} does not answer like MLflow; see MLFLOW_TRACKING_URI")
    return str(found.artifact_location)


@contextmanager
def _short_limits() -> Iterator[None]:
    """Limit what MLflow's client waits for a server; it takes limits from the environment only."""
    # Of two checks at the same time, the second would take the first one's limits for the user's.
    with _LIMITING:
        limits = {name: value for name, value in _SHORT.items() if name not in os.environ}
        os.environ.update(limits)
        try:
            yield
        finally:
            for name in limits:
                del os.environ[name]
