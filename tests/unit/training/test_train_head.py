"""Training a head: everything that its metrics depend on is logged with them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from coinml.embedding_sets.table import ids_digest, table_digest
from coinml.errors import InvalidInputError
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_origin import code_version
from coinml.training.run_context import RunContext
from coinml.training.train_head import train_head
from tests.helpers.kitchen_dataset import MODEL, EmbeddedDataset, Trained, train, training_data

INTERVALS = ("accuracy", "accuracy_missing_wrong", "f1_macro", "coverage")


def artifacts(store: MlflowStore, run_id: str, folder: str | None = None) -> set[str]:
    return {entry.path for entry in store.client().list_artifacts(run_id, folder)}


def test_every_epoch_of_the_mlp_is_logged(trained: Trained) -> None:
    run_id = trained.reports["mlp"].run_id
    client, run = trained.store.client(), trained.store.read_run(run_id)
    epochs, kept = int(run.data.params["epochs_trained"]), int(run.data.params["best_epoch"])
    assert 1 <= kept <= epochs
    for side in ("train", "val"):
        for measure in ("loss", "accuracy", "f1_macro"):
            history = client.get_metric_history(run_id, f"epoch/{side}_{measure}")
            assert [m.step for m in history] == list(range(1, epochs + 1))
            # The final value is that of the kept epoch, not of the last epoch; the loss that of its
            # calibrated scores.
            final = run.data.metrics[f"{side}/{measure}"]
            if measure != "loss":
                assert final == pytest.approx(history[kept - 1].value, abs=1e-5)
            assert own_metrics(run.data.metrics)[f"{side}_{measure}"] == final


def test_the_final_metrics_have_their_names_and_intervals(trained: Trained) -> None:
    for report in trained.reports.values():
        logged = trained.store.read_run(report.run_id).data.metrics
        metrics = own_metrics(logged)
        assert report.metrics.items() <= metrics.items()
        groups = {"epoch", "test", "test_interval", "train", "val", "val_interval", "warnings"}
        # A comparison of the two may have been recorded in one of them.
        assert {name.partition("/")[0] for name in logged} - {"versus"} | {"epoch"} == groups
        for split in ("val", "test"):
            for name in INTERVALS:
                low, value, high = (
                    metrics[f"{split}_{name}{end}"] for end in ("_low", "", "_high")
                )
                assert 0 <= low <= value <= high <= 1
            assert metrics[f"{split}_loss"] >= 0
        assert metrics["test_coverage"] == pytest.approx(6 / 7)
        assert metrics["test_accuracy_missing_wrong"] == pytest.approx(
            metrics["test_accuracy"] * 6 / 7
        )
        # With two classes it would always be 1.
        assert not any("top5" in name for name in metrics)
        assert {"train_loss", "train_accuracy", "train_f1_macro"} <= set(metrics)
        assert report.metrics == pytest.approx({key: metrics[key] for key in report.metrics})


def test_figures_tables_and_coverage_are_artifacts_of_the_run(trained: Trained) -> None:
    common = {f"figures/{name}.png" for name in ("per_class", "confusion", "calibration")}
    for head, figure in (("mlp", "figures/curves.png"), ("svm", "figures/search.png")):
        run_id = trained.reports[head].run_id
        assert artifacts(trained.store, run_id, "figures") >= common | {figure}
        tables = artifacts(trained.store, run_id, "tables")
        assert tables >= {
            f"tables/{name}.{ending}"
            for name in ("predictions", "per_class", "calibration", "confused_pairs")
            for ending in ("parquet", "csv")
        }
        assert "coverage.json" in artifacts(trained.store, run_id)
        uri = trained.store.read_run(run_id).info.artifact_uri
        assert uri.startswith((trained.home / "mlartifacts" / MODEL).as_uri())


def test_the_coverage_file_lists_every_id(trained: Trained) -> None:
    run_id = trained.reports["svm"].run_id
    trained.store.client()
    coverage = mlflow.artifacts.load_dict(f"runs:/{run_id}/coverage.json")
    sizes = {split: (c["measured"], c["official"]) for split, c in coverage.items()}
    assert sizes == {"train": (15, 16), "val": (6, 6), "test": (6, 7)}
    table = trained.material.table
    for split, entry in coverage.items():
        assert entry["ids"] == list(table["video_id"][table["split"] == split])
        assert entry["ids_digest"] == ids_digest(entry["ids"])


def test_predictions_have_every_video_of_the_table(trained: Trained) -> None:
    for report in trained.reports.values():
        predictions = trained.store.read_table(report.run_id, "predictions")
        assert set(predictions["video_id"]) == set(trained.material.table["video_id"])
        test = predictions[predictions["split"] == "test"]
        right = float((test["label"] == test["predicted"]).mean())
        assert right == report.metrics["test_accuracy"]


def test_the_version_says_from_how_many_settings_val_chose(
    trained: Trained, store: MlflowStore, material: EmbeddedDataset
) -> None:
    searched = trained.store.read_table(trained.reports["svm"].run_id, "search")
    swept = train_head(
        "knn",
        training_data("knn", material),
        store=store,
        checkpoint=material.checkpoint,
        options={"ks": [1, 3]},
        context=RunContext(sweep_trials=20),
    )

    def tried(where: MlflowStore, version: int) -> int:
        run_id = where.client().get_model_version(MODEL, str(version)).run_id
        return int(where.read_run(run_id).data.tags["settings_tried"])

    # Epochs of a network are not counted.
    assert tried(trained.store, trained.reports["mlp"].version) == 1
    assert tried(trained.store, trained.reports["svm"].version) == len(searched) > 1
    assert tried(store, swept.version) == 2 + 20


def test_the_lineage_goes_from_the_ledger_to_the_version(trained: Trained) -> None:
    material = trained.material
    for head, report in trained.reports.items():
        run = trained.store.read_run(report.run_id)
        assert run.info.status == "FINISHED"
        (entry,) = run.inputs.dataset_inputs
        assert entry.dataset.digest == table_digest(material.table)
        assert material.spec.fingerprint in entry.dataset.source
        assert "0123456789ab" in entry.dataset.source
        version = trained.store.client().get_model_version(MODEL, str(report.version))
        assert version.run_id == report.run_id
        for name, value in {
            "head": head,
            "dataset": "kitchen",
            "ledger_digest": "0123456789ab",
            "set_fingerprint": material.spec.fingerprint,
            "encoder_fingerprint": material.spec.encoder.fingerprint,
            "test_ids_digest": run.data.tags["test_ids_digest"],
            "ids_digest": ids_digest(material.table["video_id"]),
            "code_version": code_version(),
            "recipe": run.data.tags["recipe"],
        }.items():
            assert run.data.tags[name] == value
        assert version.tags["head"] == head
        for name in ("val_accuracy", "test_accuracy", "test_coverage"):
            assert float(version.tags[name]) == pytest.approx(report.metrics[name], abs=1e-4)
        (output,) = run.outputs.model_outputs
        assert version.source == f"models:/{output.model_id}"
        assert run.data.tags["version"] == str(report.version)
        # The gate's four among them.
        assert {"gate", "gate_reason"} <= version.tags.keys()
        assert len(version.tags) <= 8


def test_runs_are_found_by_name_and_tags(trained: Trained) -> None:
    client = trained.store.client()
    experiment = client.get_experiment_by_name(MODEL)
    assert "kitchen" in experiment.tags["mlflow.note.content"]

    def names(condition: str) -> list[str]:
        runs = client.search_runs([experiment.experiment_id], condition)
        return [run.info.run_name for run in runs]

    encoder = trained.material.spec.encoder.encoder
    (told,) = names("tags.head = 'mlp'")
    accuracy = trained.reports["mlp"].metrics["val_accuracy"]
    assert "tiny" in Path(encoder).name
    assert told == f"mlp t {accuracy:.3f} 15v"
    assert len(told) <= 20
    assert names(f"tags.encoder = '{encoder}' and tags.head = 'mlp' and tags.kind = 'head'") == [
        told
    ]
    assert len(names("tags.target = 'task' and metrics.`test/coverage` > 0.8")) == 2
    (other,) = names("tags.coverage = '0.857' and params.kernel = 'linear'")
    assert other.startswith("svm ")


def test_a_description_has_the_metrics_with_their_intervals(trained: Trained) -> None:
    for head, report in trained.reports.items():
        note = trained.store.read_run(report.run_id).data.tags["mlflow.note.content"]
        version = trained.store.client().get_model_version(MODEL, str(report.version))
        for text in (note, version.description):
            assert f"**{head}**" in text
            assert "15 train, 6 val, 6 test videos of 3 classes" in text
            low, value, high = (
                report.metrics[f"test_accuracy{end}"] for end in ("_low", "", "_high")
            )
            assert f"| accuracy on test | {value:.3f} | {low:.3f} to {high:.3f} |" in text
        assert "mlflow.note.content" not in version.tags
    model = trained.store.client().get_registered_model(MODEL)
    assert f"models:/{MODEL}@champion" in model.description


def test_a_comparison_of_two_heads_shows_what_differs_and_little_else(trained: Trained) -> None:
    params = {
        head: trained.store.read_run(report.run_id).data.params
        for head, report in trained.reports.items()
    }
    assert "None" not in {value for of in params.values() for value in of.values()}
    same = {k for k in params["mlp"] if params["svm"].get(k) == params["mlp"][k]}
    assert same == {
        "seed",
        "encoder",
        "clips",
        "extent",
        "classes",
        "train_videos",
        "val_videos",
        "test_videos",
    }
    assert set(params["svm"]) - same == {"head", "kernel", "C", "temperature"}
    assert {"hidden", "lr", "dropout", "best_epoch"} < set(params["mlp"]) - same
    assert len(params["mlp"]) < 30


def test_a_runs_dataset_has_no_embedding_columns(trained: Trained) -> None:
    run = trained.store.read_run(trained.reports["mlp"].run_id)
    (entry,) = run.inputs.dataset_inputs
    columns = [one["name"] for one in json.loads(entry.dataset.schema)["mlflow_colspec"]]
    assert columns == ["video_id", "label", "split"]


def test_too_little_data_is_refused_before_a_run_is_made(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    table = material.table
    with pytest.raises(InvalidInputError, match="no embedded video in the val split"):
        train("svm", store, material, table=table[table["split"] != "val"])
    assert store.find_runs(MODEL, {}, finished=False) == []


TRAIN = """
import pickle, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.helpers.kitchen_dataset import train
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_origin import code_version
folder = Path(sys.argv[1])
material = pickle.loads((folder / "material.pickle").read_bytes())
store = MlflowStore(uri=f"sqlite:///{folder}/mlflow.db", artifact_root=folder / "mlartifacts")
for head in ("mlp", "svm"):
    train(head, store, material)
"""


@pytest.mark.timeout(200)
def test_training_prints_nothing(
    store: MlflowStore, material: EmbeddedDataset, tmp_path: Path
) -> None:
    (tmp_path / "material.pickle").write_bytes(pickle.dumps(material))
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path), str(Path(__file__).parents[3])],
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(store.find_runs(MODEL, {})) == 2


def test_a_report_can_be_written_as_json(trained: Trained) -> None:
    for report in trained.reports.values():
        assert json.loads(json.dumps(report.as_dict()))["version"] == report.version


def test_both_heads_are_trained_at_the_same_time(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(lambda head: train(head, store, material), ("mlp", "svm")))
    assert sorted(report.version for report in reports) == [1, 2]
    for report in reports:
        run = store.read_run(report.run_id)
        assert run.info.status == "FINISHED"
        assert run.data.tags["head"] == report.head
        assert len(run.outputs.model_outputs) == 1
