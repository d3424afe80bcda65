"""Every evaluation on a test set is counted, also after the set has grown."""

from __future__ import annotations

from dataclasses import replace

from coinml.embedding_sets.options import SetOptions
from coinml.studies.plans import make_plan
from coinml.studies.run_study import run_study
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.test_looks import TEST_IDS_DIGEST
from coinml.training.cv_runs import cross_validate_head
from coinml.training.looks import count_looks, recounted
from coinml.training.training_data import TrainingData
from tests.helpers.kitchen_dataset import MODEL, EmbeddedDataset, train, training_data


def looks(report: object) -> float:
    return report.metrics["test_looks"]  # type: ignore[attr-defined]


def test_a_new_test_video_does_not_reset_the_count(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    table = material.table
    tests = table.index[table["split"] == "test"]
    fewer = table.drop(index=tests[0])
    assert looks(train("svm", store, material, table=fewer)) == 1
    assert looks(train("svm", store, material)) == 2
    assert looks(train("knn", store, material)) == 3
    # A head that is found again has the number of now.
    again = train("svm", store, material)
    assert again.reused
    assert looks(again) == 3
    # Another test video alone: nobody has looked at it except those who had all.
    only = table.drop(index=tests[1:])
    assert looks(train("svm", store, material, table=only)) == 3
    apart = count_looks(store, MODEL, "0" * 12, {"another video"})
    assert apart == 0


def test_reports_are_counted_again_when_others_have_followed(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    folder = replace(material, dataset=replace(material.dataset, official_split=False))
    reports = [train(head, store, folder) for head in ("svm", "knn")]
    assert [looks(one) for one in reports] == [1, 2]
    data = TrainingData(dataset=folder.dataset, table=folder.table, spec=folder.spec)
    cross_validate_head("knn", data, folds=3, repeats=1, store=store)
    again = recounted(store, reports)
    assert [looks(one) for one in again] == [3, 3]
    assert [one.run_id for one in again] == [one.run_id for one in reports]
    # What MLflow has is the number when the head was evaluated.
    assert store.read_run(reports[0].run_id).data.metrics["test/looks"] == 1


def test_failed_runs_and_studies_count(store: MlflowStore, material: EmbeddedDataset) -> None:
    with store.run(MODEL, "killed", tags={"kind": "head", TEST_IDS_DIGEST: "0" * 12}):
        pass
    assert looks(train("svm", store, material)) == 2
    data = training_data("svm", material)
    plan = make_plan("data", SetOptions(), ("50", "100"))
    study = run_study(plan, {plan.reference: data}, heads=["svm"], seeds=1, store=store)
    fits = store.find_runs(study.experiment, {"kind": "fit"})
    assert len(fits) == 2
    assert looks(train("knn", store, material)) == 2 + len(fits) + 1
