"""MLflow's store on this machine: a database; folders only where the user allows them."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import mlflow
from filelock import FileLock

from coinml.errors import LocalError
from coinml.runtime.sqlite_files import refuse_damaged

WITHOUT_COPY = "remove the file: its runs and versions are lost, and heads are trained again"
"""What to do about a damaged database if there is no copy of it."""

_MAKING = threading.Lock()
_made: set[Path] = set()
"""Databases whose tables this process knows to exist."""


def make_database(path: Path, artifact_root: Path) -> None:
    """Create the tables, one thread of one process at a time: MLflow fails if several try.

    Args:
        path: The database's file.
        artifact_root: The folder of its artifacts.

    Raises:
        LocalError: The file cannot be used, or is damaged.
    """
    with _MAKING:
        if path in _made and path.is_file():
            return
        # MLflow would try to open it for two minutes.
        if path.is_dir():
            raise LocalError(f"MLflow's database {path}: is a folder")
        # MLflow, killed while it makes the tables, leaves an empty file; there are no runs then.
        if not _is_new(path, artifact_root):
            refuse_damaged(path, "mlflow", WITHOUT_COPY)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_name(f"{path.name}.lock")):
                mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
        except OSError as err:
            raise LocalError(f"MLflow's database {path}: {err}") from err
        _made.add(path)


def _is_new(path: Path, artifact_root: Path) -> bool:
    empty = not path.exists() or not path.stat().st_size
    return empty and not (artifact_root.is_dir() and any(artifact_root.iterdir()))


def allows_folders() -> bool:
    """Whether the user has told MLflow to keep runs in folders all the same."""
    return os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
