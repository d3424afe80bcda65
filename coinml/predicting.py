"""The registered model on files, as the command line uses it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from coinml.errors import RegistryError
from coinml.registry import model_uri
from coinml.tracking import Store

for _name in ("mlflow", "mlflow.pyfunc"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def predict_files(
    store: Store, model: str, files: Sequence[str], *, uri: str | None = None
) -> list[dict[str, Any]]:
    """Classify video files.

    Args:
        store: Where the registry is.
        model: Name of the registered model, whose champion answers.
        files: Paths of video files.
        uri: Another model, as `models:/mini-task/3`, instead of the champion.

    Returns:
        `video, label, score, top5, error` for each file, in their order.

    Raises:
        RegistryError: There is no such model, or it does not load.
    """
    store.client()
    wanted = uri or model_uri(model)
    try:
        # The model's requirements are those of the coinml that runs here, or near enough; to look
        # through everything that is installed takes longer than the prediction.
        loaded = mlflow.pyfunc.load_model(wanted, suppress_warnings=True)
    except MlflowException as err:
        raise RegistryError(f"{wanted} at {store.uri}: {err.message}") from err
    answers = loaded.predict(pd.DataFrame({"video": list(files)}))
    rows = answers.astype(object).where(answers.notna(), None).to_dict(orient="records")
    return [
        {"video": file, **{str(key): value for key, value in row.items()}}
        for file, row in zip(files, rows, strict=True)
    ]
