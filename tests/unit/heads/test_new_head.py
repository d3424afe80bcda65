"""A new head needs one file and one row in `heads/kinds.py`."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import EmbeddedDataset

ROOT = Path(__file__).resolve().parents[3]

ROW = """
        HeadKind(
            name="nearest_mean",
            trainer="coinml.heads.nearest_mean:train_nearest_mean",
            head_class="coinml.heads.nearest_mean:NearestMeanHead",
            search_space="coinml.heads.nearest_mean:SEARCH_SPACE",
            count_settings="coinml.heads.nearest_mean:count_settings",
        ),
"""

TRAIN = """
import json, pickle, sys
from pathlib import Path

import coinml
from coinml.heads.kinds import HEADS, head_kind
from coinml.ledger import FileFacts, Ledger
from coinml.registry.predict import predict_files
from coinml.registry.promotion import promote
from coinml.registry.versions import list_versions
from coinml.report.gathering import gather
from coinml.report.page import write_report
from coinml.tracking.compare_runs import compare_runs
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import MODEL, train, tune

folder = Path(sys.argv[1])
material = pickle.loads((folder / "material.pickle").read_bytes())
store = MlflowStore(uri=f"sqlite:///{folder}/mlflow.db", artifact_root=folder / "mlartifacts")
with Ledger(f"sqlite:///{folder}/ledger.db") as ledger:
    ledger.register(material.dataset)
    for video_id, path in material.videos.items():
        facts = FileFacts(path=str(path), size_bytes=path.stat().st_size, sha256=video_id)
        ledger.record_success(material.dataset.name, video_id, file=facts, attempt=None)
    tuned = tune("nearest_mean", store, material, trials=3, storage=folder / "sweeps.db")
    new = train("nearest_mean", store, material, options=dict(tuned.result.options))
    old = train("logreg", store, material)
    promote(store, MODEL, [new.version])
    compared = compare_runs(store, old.run_id, new.run_id, record=True)
    no_sets = str(folder / "none")
    page = gather(material.dataset, store=store, ledger=ledger, embeddings_root=no_sets)
    write_report(page, folder / "report.html", projections=("pca",))
video = str(next(iter(material.videos.values())))
print(json.dumps({
    "answers": predict_files(store, f"models:/{MODEL}@champion", [video]),
    "coinml": coinml.__file__,
    "heads": HEADS,
    "max_steps": head_kind("nearest_mean").max_steps({}),
    "again": train("nearest_mean", store, material, options=dict(tuned.result.options)).reused,
    "tuned": tuned.as_dict(),
    "metrics": dict(new.metrics),
    "params": dict(store.read_run(new.run_id).data.params),
    "tried": len(store.read_table(new.run_id, "search")),
    "compared": [compared.head_a, compared.head_b],
    "versions": list_versions(store, MODEL),
}))
"""

PREDICT = """
import json, os, sys

import mlflow
import pandas as pd

mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}/mlflow.db")
model = mlflow.pyfunc.load_model("models:/kitchen-task@champion", suppress_warnings=True)
print(json.dumps(model.predict(pd.DataFrame({"video": sys.argv[2:]})).to_dict(orient="records")))
"""


@pytest.mark.timeout(300)
def test_a_new_head_is_one_file_and_one_row(
    store: MlflowStore, material: EmbeddedDataset, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "coinml", source / "coinml", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "tests" / "helpers", source / "tests" / "helpers")
    shutil.copyfile(ROOT / "tests/helpers/nearest_mean.py", source / "coinml/heads/nearest_mean.py")
    kinds = source / "coinml" / "heads" / "kinds.py"
    before, rows_begin, after = kinds.read_text().partition("    for kind in (\n")
    kinds.write_text(before + rows_begin + ROW.lstrip("\n") + after)
    (tmp_path / "material.pickle").write_bytes(pickle.dumps(material))

    done = run_python(TRAIN, tmp_path, source=source)
    assert Path(done["coinml"]).is_relative_to(source)
    assert done["heads"][0] == "nearest_mean"
    assert done["max_steps"] == 2
    assert done["again"]
    assert done["tuned"]["result"]["completed"] == 3
    assert done["metrics"]["test_accuracy"] > 0.9
    # The sweep's first trial is the whole search of the head, without options.
    options = done["tuned"]["result"]["options"]
    assert float(done["params"]["scale"]) in options.get("scales", (1.0, 10.0))
    assert done["tried"] == (1 if options else 2)
    assert done["compared"] == ["logreg", "nearest_mean"]
    champion = next(one for one in done["versions"] if "champion" in one["aliases"])
    assert champion["tags"]["head"] == "nearest_mean"
    assert "nearest_mean (version " in (tmp_path / "report.html").read_text()

    # In a process whose own coinml lacks the head too: the model carries its code.
    video_id, video = next(iter(material.videos.items()))
    for (answer,) in (done["answers"], run_python(PREDICT, tmp_path, str(video), source=ROOT)):
        assert (answer["error"], answer["label"]) == (None, video_id[:4])


def run_python(script: str, folder: Path, *arguments: str, source: Path) -> Any:
    """What a script prints as JSON, run with the packages of a source tree."""
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder), *arguments],
        env={**os.environ, "PYTHONPATH": str(source)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
