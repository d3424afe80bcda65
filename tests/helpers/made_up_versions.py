"""Registered model versions with made-up predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from coinml.evaluation.evaluate import evaluate
from coinml.registry.versions import CHALLENGER, version_at
from coinml.tracking.mlflow_store import MlflowStore

NAME = "coin-task"
CLASSES = ("Boil", "Cut", "Fry")


def candidate(
    store: MlflowStore,
    *,
    right: float,
    test_right: float | None = None,
    ids: range = range(60),
    classes: Sequence[str] = CLASSES,
    coverage: float = 1.0,
) -> int:
    """Register a version as training does, with made-up predictions instead of a model.

    Args:
        store: The MLflow store.
        right: Share of correct val predictions; the first ones are correct.
        test_right: The same for test; default: as for val.
        ids: Numbers of the videos; a video's label follows from its number.
        classes: The classes.
        coverage: Share of the official test videos that were evaluated.
    """
    tables, metrics = [], {}
    for split, share in (("val", right), ("test", right if test_right is None else test_right)):
        n = len(ids)
        truth = np.array([i % len(classes) for i in ids])
        wrong = np.arange(n) >= round(share * n)
        answers = np.where(wrong, (truth + 1) % len(classes), truth)
        measured = evaluate(
            truth, np.eye(len(classes))[answers], classes, official_size=round(n / coverage)
        )
        metrics |= measured.metrics(split)
        tables.append(
            pd.DataFrame(
                {
                    "video_id": [f"{split}{i}" for i in ids],
                    "split": split,
                    "label": [classes[y] for y in truth],
                    "predicted": [classes[y] for y in answers],
                    "score": 1.0,
                }
            )
        )
    with store.run(NAME, "made up", tags={}) as log:
        log.metrics(metrics)
        log.table("predictions", pd.concat(tables))
    client = store.client()
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    uri = store.read_run(log.run_id).info.artifact_uri
    tags = {key: f"{value:.4f}" for key, value in metrics.items()}
    version = client.create_model_version(NAME, uri, run_id=log.run_id, tags=tags)
    client.set_registered_model_alias(NAME, CHALLENGER, version.version)
    return int(version.version)


def holder(store: MlflowStore, alias: str) -> int | None:
    version = version_at(store, NAME, alias)
    return None if version is None else int(version.version)


def tags(store: MlflowStore, version: int) -> dict[str, str]:
    return dict(store.client().get_model_version(NAME, str(version)).tags)
