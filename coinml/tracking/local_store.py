"""MLflow's store on this machine: a database; folders only where the user allows them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import mlflow
from filelock import FileLock

from coinml.errors import LocalError

_MAKING = threading.Lock()
_made: set[Path] = set()
"""Databases whose tables this process knows to exist."""


def make_database(path: Path) -> None:
    """Create the tables, one thread of one process at a time: MLflow fails if several try.

    Raises:
        LocalError: The file cannot be used.
    """
    with _MAKING:
        if path in _made and path.is_file():
            return
        # MLflow would try to open it for two minutes.
        if path.is_dir():
            raise LocalError(f"MLflow's database {path}: is a folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f"{path.name}.lock")):
                mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
        except OSError as err:
            raise LocalError(f"MLflow's database {path}: {err}") from err
        _made.add(path)


def allows_folders() -> bool:
    """Whether the user has told MLflow to keep runs in folders all the same."""
    return os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
