"""What trainings, an hour after another, leave in a home: runs, models, versions, sweeps."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from coinml.registry.versions import CHALLENGER, CHAMPION
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.test_looks import TEST_IDS_DIGEST

MODEL = "toy-task"


def train_once(
    store: MlflowStore, folder: Path, *, head: str = "mlp", gate: str = "refused", model_bytes: int
) -> str:
    """A run with a table, a model and a registered version; returns its id.

    The newest version has the alias `challenger`; the first one, `champion`.
    """
    tags = {"kind": "head", "head": head, TEST_IDS_DIGEST: "0" * 12}
    with store.run(MODEL, f"{head} 12v", tags=tags) as log:
        ids = [f"v{n}" for n in range(20)]
        log.table("predictions", pd.DataFrame({"video_id": ids, "split": "test"}))
        log.metrics({f"metric_{n}": float(n) for n in range(40)})
    client = store.client()
    experiment = store.read_run(log.run_id).info.experiment_id
    logged = client.create_logged_model(experiment, "model", source_run_id=log.run_id)
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    (model / "weights.bin").write_bytes(os.urandom(model_bytes))
    client.log_model_artifacts(logged.model_id, str(model))
    client.finalize_logged_model(logged.model_id, "READY")
    is_first = not client.search_registered_models(f"name = '{MODEL}'")
    if is_first:
        client.create_registered_model(MODEL)
    version = client.create_model_version(
        MODEL,
        logged.model_uri,
        run_id=log.run_id,
        model_id=logged.model_id,
        tags={"gate": gate, "head": head, "gate_reason": "no better"},
    )
    client.set_registered_model_alias(MODEL, CHALLENGER, version.version)
    if is_first:
        client.set_registered_model_alias(MODEL, CHAMPION, version.version)
    client.set_tag(log.run_id, "version", str(version.version))
    return str(log.run_id)


def sweep_once(store: MlflowStore, *, trials: int) -> str:
    """A sweep's run with its trials; returns its id."""
    with store.run(MODEL, "sweep", tags={"kind": "sweep", "head": "mlp", "sweep": "x"}) as log:
        for number in range(trials):
            with store.run(
                MODEL, f"trial {number}", tags={"kind": "trial"}, parent_run_id=log.run_id
            ) as trial:
                trial.metrics({"val_loss": 1.0})
    return str(log.run_id)
