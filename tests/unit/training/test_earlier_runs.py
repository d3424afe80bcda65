"""Training a head again: earlier runs are reused, continued or replaced."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from coinml.embedding_sets.table import permute_labels
from coinml.errors import TransientError
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training import train_head
from tests.helpers.kitchen_dataset import MODEL, EmbeddedDataset, Trained, train


def test_the_same_recipe_is_not_trained_again(trained: Trained) -> None:
    before = trained.reports["mlp"]
    again = train("mlp", trained.store, trained.material)
    assert again.reused
    assert (again.run_id, again.version) == (before.run_id, before.version)
    assert again.metrics["test_accuracy"] == before.metrics["test_accuracy"]


def test_another_seed_table_or_code_is_trained_and_looks_are_counted(
    store: MlflowStore, material: EmbeddedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = [train("svm", store, material), train("svm", store, material, seed=1)]
    shuffled = permute_labels(material.table, seed=1)
    reports.append(train("svm", store, material, table=shuffled))
    monkeypatch.setattr(train_head, "code_digest", lambda: "of other code")
    reports.append(train("svm", store, material))
    assert [report.reused for report in reports] == [False] * 4
    assert [report.version for report in reports] == [1, 2, 3, 4]
    # All were measured on the same test videos.
    assert [report.metrics["test_looks"] for report in reports] == [1, 2, 3, 4]
    monkeypatch.undo()
    store.client().delete_model_version(MODEL, "2")
    assert not train("svm", store, material, seed=1).reused


def test_a_failure_in_training_ends_the_run_and_keeps_its_curves(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    class StopError(Exception):
        pass

    def stop_after(epochs: int, error: type[BaseException]) -> Callable[[], None]:
        seen: list[int] = []

        def tick() -> None:
            seen.append(1)
            if len(seen) == epochs:
                raise error

        return tick

    for error, status in ((StopError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error):
            train("mlp", store, material, on_step=stop_after(3, error))
        (run_id, *_) = store.find_runs(MODEL, {"head": "mlp"}, finished=False)
        assert store.read_run(run_id).info.status == status
        history = store.client().get_metric_history(run_id, "epoch/val_loss")
        assert [m.step for m in history] == [1, 2, 3]
    report = train("mlp", store, material)
    assert not report.reused
    # Neither of the two was measured on the test videos.
    assert report.metrics["test_looks"] == 1


def test_a_run_without_a_version_is_trained_again(
    store: MlflowStore, material: EmbeddedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*_args: object, **_options: object) -> int:
        raise OSError("no space left")

    monkeypatch.setattr(train_head, "register", no_space)
    with pytest.raises(OSError, match="no space left"):
        train("svm", store, material)
    monkeypatch.undo()
    report = train("svm", store, material)
    assert not report.reused
    assert report.metrics["test_looks"] == 2


def test_a_fitted_head_is_kept_while_the_store_is_away(
    store: MlflowStore, material: EmbeddedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "fitted"
    fits: list[int] = []
    away = True

    def refused(*args: object, **options: object) -> object:
        if away:
            raise MlflowException("API request to http://127.0.0.1:9 failed with exception")
        return log_figure(*args, **options)

    log_figure = mlflow.MlflowClient.log_figure
    monkeypatch.setattr(mlflow.MlflowClient, "log_figure", refused)
    for head in ("mlp", "svm", "knn"):
        away = True
        with pytest.raises(TransientError, match="does not answer"), store.outages_as_transient():
            train(head, store, material, fits_folder=kept, on_step=lambda: fits.append(1))
        fitted, away = len(fits), False
        report = train(head, store, material, fits_folder=kept, on_step=lambda: fits.append(1))
        assert len(fits) == fitted > 0
        assert list(kept.iterdir()) == []
        runs = store.find_runs(MODEL, {"head": head}, finished=False)
        # One run with the complete history, counted as one measurement on the test videos.
        assert runs == [report.run_id]
        run = store.read_run(report.run_id)
        assert run.info.status == "FINISHED"
        assert report.metrics["test_looks"] == {"mlp": 1, "svm": 2, "knn": 3}[head]
        if head == "mlp":
            history = store.client().get_metric_history(report.run_id, "epoch/val_loss")
            assert [m.step for m in history] == list(range(1, len(fits) + 1))
        fits.clear()


def test_a_damaged_kept_head_is_trained_again(
    store: MlflowStore, material: EmbeddedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_head, "register", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train("knn", store, material, fits_folder=tmp_path / "kept")
    monkeypatch.undo()
    ((place,),) = [list((tmp_path / "kept").iterdir())]
    # A pickle in its place is not read.
    (place / "head.skops").write_bytes(pickle.dumps({"format": "coinml-knn-1"}))
    fits: list[int] = []
    report = train(
        "knn", store, material, fits_folder=tmp_path / "kept", on_step=lambda: fits.append(1)
    )
    assert fits
    assert not report.reused


def test_a_run_that_was_killed_after_registration_is_reused(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    report = train("knn", store, material)
    store.client().set_terminated(report.run_id, "KILLED")
    again = train("knn", store, material)
    assert (again.reused, again.run_id) == (True, report.run_id)
    assert store.read_run(report.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("table", ["class_counts", "predictions"])
def test_a_run_whose_files_are_gone_is_not_reused(
    table: str, store: MlflowStore, material: EmbeddedDataset
) -> None:
    report = train("knn", store, material)
    place = Path(store.read_run(report.run_id).info.artifact_uri.removeprefix("file://"))
    (place / "tables" / f"{table}.parquet").unlink()
    again = train("knn", store, material)
    assert (again.reused, again.version) == (False, report.version + 1)


def test_a_run_of_a_model_that_was_deleted_is_not_taken_for_its_successor(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    before = train("knn", store, material)
    store.client().delete_registered_model(before.model)
    other = train("logreg", store, material)
    assert other.version == before.version
    again = train("knn", store, material)
    assert (again.reused, again.version) == (False, 2)
