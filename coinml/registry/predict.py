"""Predict video files with a registered model."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

# A pickle can run any code when it is loaded. The models that coinml registers need none.
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from coinml.data.targets import Span
from coinml.errors import NoModelError, RegistryError
from coinml.evaluation.abstention import Threshold
from coinml.registry.serving_limits import own_command
from coinml.registry.versions import CHALLENGER, CHAMPION, version_at
from coinml.tracking.mlflow_errors import is_missing
from coinml.tracking.mlflow_store import MlflowStore

_AT_ONCE = 16
"""Files per call of the model: enough to decode in parallel, few enough to show progress."""

for _name in ("mlflow", "mlflow.pyfunc"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def answering_alias(store: MlflowStore, model: str) -> str:
    """The alias to predict with: `champion`, or `challenger` if there is no champion.

    Raises:
        RegistryError: The model has neither alias.
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
    threshold: Threshold | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Any]]:
    """Classify video files.

    Args:
        store: Where the registry is.
        uri: The model, as `models:/mini-task@champion` or `models:/mini-task/3`.
        files: Paths of video files.
        span: Start and end in seconds of the part to classify; by default the whole video.
        threshold: From which score answers are accepted, as `abstention_threshold` finds it.
        progress: Called with the number of files answered since the last call.

    Returns:
        A dict `video, label, score, top5, error` for each file, in the order of `files`; with a
        threshold also `accepted`, which is False where there is an error.

    Raises:
        NoModelError: There is no such model.
        RegistryError: It does not load.
    """
    loaded = load_model(store, uri)
    names = ("start_s", "end_s")
    limits = {name: at for name, at in zip(names, span, strict=True) if at is not None}
    answers = []
    for start in range(0, len(files), _AT_ONCE):
        part = list(files[start : start + _AT_ONCE])
        with own_command():
            table = loaded.predict(pd.DataFrame({"video": part} | limits))
        rows = table.astype(object).where(table.notna(), None).to_dict(orient="records")
        for file, row in zip(part, rows, strict=True):
            answer = {"video": file, **{str(key): value for key, value in row.items()}}
            if threshold is not None:
                score = answer["score"]
                answer["accepted"] = score is not None and score >= threshold.score
            answers.append(answer)
        if progress is not None:
            progress(len(part))
    return answers


def load_model(store: MlflowStore, uri: str) -> Any:
    """Load a registered model, as a `PyFuncModel` of MLflow.

    Raises:
        NoModelError: There is no such model.
        RegistryError: It does not load.
    """
    store.client()
    path_before = list(sys.path)
    try:
        # Warnings are suppressed to skip the check of installed packages against the model's
        # requirements: it takes longer than a prediction.
        return mlflow.pyfunc.load_model(uri, suppress_warnings=True)
    except MlflowException as err:
        kind = NoModelError if is_missing(err) else RegistryError
        raise kind(f"{uri} at {store.shown}: {store.masked(err)}") from err
    finally:
        # MLflow prepends the model's own copy of coinml to sys.path. Processes started later
        # would inherit that path and run the copy.
        sys.path[:] = path_before
