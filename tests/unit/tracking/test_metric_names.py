"""What metrics are called in MLflow, and that runs with the former names are read."""

from __future__ import annotations

import pandas as pd
import pytest

from coinml.tracking.compare_runs import compare_runs
from coinml.tracking.metric_names import curve_name, logged_name, own_metrics
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_log import RunLog


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("val_accuracy", "val/accuracy"),
        ("test_accuracy_low", "test_interval/accuracy_low"),
        ("test_top5_accuracy_high", "test_interval/top5_accuracy_high"),
        ("test_accuracy_missing_wrong", "test/accuracy_missing_wrong"),
        ("cv_accuracy_low", "cv_interval/accuracy_low"),
        ("test_looks", "test/looks"),
        ("test_difference_low", "versus/test_difference_low"),
        ("val_mcnemar_p", "versus/val_mcnemar_p"),
        ("leaks", "warnings/leaks"),
        ("best_val_loss", "best/val_loss"),
        ("trials_pruned", "trials/pruned"),
        ("audit_suspects", "audit/suspects"),
        ("fit_s", "time/fit_s"),
        ("one", "one"),
    ],
)
def test_each_name_is_read_back(name: str, logged: str) -> None:
    assert logged_name(name) == logged
    assert own_metrics({logged: 0.5}) == {name: 0.5}
    # Runs of an earlier coinml.
    assert own_metrics({name: 0.5}) == {name: 0.5}


def test_curves_are_no_final_metrics() -> None:
    assert own_metrics({"epoch/val_loss": 2.0, "condition/val_loss": 3.0, "val/loss": 1.0}) == {
        "val_loss": 1.0
    }
    assert curve_name("epoch/val_loss") == "val_loss"
    assert curve_name("step/loss") == "loss"
    assert curve_name("val/loss") is curve_name("val_loss") is None


def test_a_run_with_the_former_names_is_compared_with_a_new_one(store: MlflowStore) -> None:
    client = store.client()
    numbers = {"test_accuracy": 0.5, "test_majority_rate": 0.5}
    numbers |= {"test_accuracy_low": 0.1, "test_accuracy_high": 0.9}
    runs = []
    for head, right in (("svm", 10), ("mlp", 14)):
        with store.run("e", head, tags={"head": head}) as log:
            log.table("predictions", predictions(right))
            runs.append(log)
    for name, value in numbers.items():
        client.log_metric(runs[0].run_id, name, value)
    for step in range(1, 4):
        client.log_metric(runs[0].run_id, "val_loss", 1 / step, step=step)
    runs[1].metrics(numbers)
    compare_runs(store, runs[0].run_id, runs[1].run_id, record=True)
    assert metrics_of(store, runs[1])["test_difference"] == pytest.approx(0.2)
    assert list(store.read_history(runs[0].run_id)) == ["step", "val_loss"]


def predictions(right: int) -> pd.DataFrame:
    """Answers to 20 test videos of two classes, the first ones right."""
    labels = ["Boil", "Fry"] * 10
    other = {"Boil": "Fry", "Fry": "Boil"}
    answers = [one if i < right else other[one] for i, one in enumerate(labels)]
    return pd.DataFrame(
        {
            "video_id": [f"video{i}" for i in range(20)],
            "split": "test",
            "label": labels,
            "predicted": answers,
            "score": 0.9,
        }
    )


def metrics_of(store: MlflowStore, log: RunLog) -> dict[str, float]:
    return own_metrics(store.read_run(log.run_id).data.metrics)
