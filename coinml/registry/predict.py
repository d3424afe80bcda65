"""The registered model on files, as the command line uses it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

# Ours load without; whoever put one into the registry would have it run here.
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from coinml.data.targets import Span
from coinml.errors import RegistryError
from coinml.registry.versions import CHALLENGER, CHAMPION, version_at
from coinml.tracking.mlflow_store import MlflowStore

_AT_ONCE = 16
"""Files a call of the model: enough to decode side by side, few enough to show progress."""

for _name in ("mlflow", "mlflow.pyfunc"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def answering_alias(store: MlflowStore, model: str) -> str:
    """The alias of whom is asked: the champion, or the challenger while there is none.

    Raises:
        RegistryError: The model has neither.
    """
    for alias in (CHAMPION, CHALLENGER):
        if version_at(store, model, alias) is not None:
            return alias
    raise RegistryError(
        f"{model} at {store.shown} has no {CHAMPION}, nor a {CHALLENGER}: train one"
    )


def predict_files(
    store: MlflowStore,
    uri: str,
    files: Sequence[str],
    *,
    span: Span = (None, None),
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Classify video files.

    Args:
        store: Where the registry is.
        uri: The model, as `models:/mini-task@champion` or `models:/mini-task/3`.
        files: Paths of video files.
        span: Start and end in seconds of what is looked at in each; all of it by default.
        progress: Called with how many files more have their answer.

    Returns:
        `video, label, score, top5, error` for each file, in their order.

    Raises:
        RegistryError: There is no such model, or it does not load.
    """
    store.client()
    path_before = list(sys.path)
    try:
        # The model's requirements are those of the coinml that runs here, or near enough; to look
        # through everything that is installed takes longer than the prediction.
        loaded = mlflow.pyfunc.load_model(uri, suppress_warnings=True)
    except MlflowException as err:
        raise RegistryError(f"{uri} at {store.shown}: {store.masked(err)}") from err
    finally:
        # MLflow puts the code that the model carries before all other; what this process starts
        # afterwards would run that instead of the coinml that is here.
        sys.path[:] = path_before
    names = ("start_s", "end_s")
    limits = {name: at for name, at in zip(names, span, strict=True) if at is not None}
    answers = []
    for start in range(0, len(files), _AT_ONCE):
        part = list(files[start : start + _AT_ONCE])
        table = loaded.predict(pd.DataFrame({"video": part} | limits))
        rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
        for file, row in zip(part, rows, strict=True):
            answers.append({"video": file, **{str(key): value for key, value in row.items()}})
        if progress is not None:
            progress(len(part))
    return answers
