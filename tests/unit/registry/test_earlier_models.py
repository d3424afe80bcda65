"""Models and runs of the commit before the files were moved, made by that commit's own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from coinml.data.records import Dataset, Video
from coinml.ledger import Ledger
from coinml.registry.predict import predict_files
from coinml.registry.promotion import promote
from coinml.report import write_report
from coinml.report.gathering import gather
from coinml.tracking.compare_runs import compare_runs
from coinml.tracking.mlflow_store import MlflowStore

ROOT = Path(__file__).resolve().parents[3]
EARLIER = "24d9e12da863bea4ca6eefdf9a825913d6d2cb84"

# `kitchen` is a helper of that commit's tests: three classes of drawn videos.
MAKE = """
import json, sys
from pathlib import Path
from kitchen import make_material, train_both
from coinml.tracking import Store
home, encoder = map(Path, sys.argv[1:])
store = Store(uri=f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts")
(home / "videos").mkdir()
material = make_material(home / "videos", encoder)
trained = train_both(home, store, material)
import coinml, mlflow, pandas as pd
store.client()
files = [str(path) for path in material.videos.values()]
answers = {
    head: mlflow.pyfunc.load_model(f"models:/kitchen-task/{report.version}")
    .predict(pd.DataFrame({"video": files})).to_dict(orient="records")
    for head, report in trained.reports.items()
}
videos = [[v.video_id, v.label, v.subset, v.split] for v in material.dataset.videos]
reports = {head: report.as_dict() for head, report in trained.reports.items()}
made = {"coinml": coinml.__file__, "files": files, "answers": answers, "videos": videos}
(home / "made.json").write_text(json.dumps(made | {"reports": reports}))
"""

LOAD = """
import json, sys
sys.path = [entry for entry in sys.path if entry != sys.argv[1]]
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model(sys.argv[3])
answers = model.predict(pd.DataFrame({"video": sys.argv[4:]})).to_dict(orient="records")
import coinml
print(json.dumps({"coinml": coinml.__file__, "answers": answers}))
"""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What the earlier commit registered and answered."""

    store: MlflowStore
    files: list[str]
    answers: dict[str, list[dict[str, Any]]]
    reports: dict[str, dict[str, Any]]
    dataset: Dataset

    def uri(self, head: str) -> str:
        return f"models:/kitchen-task/{self.reports[head]['version']}"


@pytest.fixture(scope="module")
def earlier(
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[Path], MlflowStore],
    tiny_encoder_dir: Path,
) -> Earlier:
    archive = subprocess.run(
        ["git", "archive", EARLIER, "coinml", "tests/unit/kitchen.py"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode != 0:
        pytest.skip(f"no commit {EARLIER[:7]} in this checkout's history")
    code, home = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("home")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(code, filter="data")
    store = new_store(home)
    subprocess.run(
        [sys.executable, "-P", "-c", MAKE, str(home), str(tiny_encoder_dir)],
        cwd=home,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(code), str(code / "tests" / "unit")])},
        check=True,
        timeout=250,
    )
    made = json.loads((home / "made.json").read_text())
    assert made["coinml"] == str(code / "coinml" / "__init__.py")
    return Earlier(
        store=store,
        files=made["files"],
        answers=made["answers"],
        reports=made["reports"],
        dataset=Dataset(
            name="kitchen",
            videos=tuple(
                Video(video_id=video_id, label=label, subset=subset, split=split)
                for video_id, label, subset, split in made["videos"]
            ),
        ),
    )


def assert_same_answers(new: list[dict[str, Any]], old: list[dict[str, Any]]) -> None:
    assert len(new) == len(old) > 20
    for ours, theirs in zip(new, old, strict=True):
        assert ours["error"] is theirs["error"] is None
        assert ours["label"] == theirs["label"]
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
        assert [one["label"] for one in ours["top5"]] == [one["label"] for one in theirs["top5"]]


@pytest.mark.parametrize("head", ["mlp", "svm"])
def test_coinml_predicts_with_an_earlier_model(earlier: Earlier, head: str) -> None:
    assert_same_answers(
        predict_files(earlier.store, earlier.uri(head), earlier.files), earlier.answers[head]
    )


def test_mlflow_loads_an_earlier_model_beside_this_coinml(earlier: Earlier) -> None:
    earlier.store.client()
    model = mlflow.pyfunc.load_model(earlier.uri("mlp"), suppress_warnings=True)
    answers = model.predict(pd.DataFrame({"video": earlier.files})).to_dict(orient="records")
    assert_same_answers(answers, earlier.answers["mlp"])
    # A process that loads it beside this coinml runs this code, and it carries no answers on val.
    with pytest.raises(MlflowException, match="registered by an earlier version"):
        model.unwrap_python_model().predict(
            None, pd.DataFrame({"video": earlier.files}), {"precision": 0.9}
        )


def test_an_earlier_model_brings_its_own_code_where_no_coinml_is(
    earlier: Earlier, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "COINML_HOME")}
    call = [str(ROOT), earlier.store.uri, earlier.uri("svm"), *earlier.files]
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, *call],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert not Path(said["coinml"]).is_relative_to(ROOT)
    assert_same_answers(said["answers"], earlier.answers["svm"])


def test_earlier_runs_are_compared_reported_and_promoted(earlier: Earlier, tmp_path: Path) -> None:
    runs = [earlier.reports[head]["run_id"] for head in ("mlp", "svm")]
    comparison = compare_runs(earlier.store, *runs)
    assert (comparison.head_a, comparison.head_b, comparison.result.n) == ("mlp", "svm", 6)
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.register(earlier.dataset)
        material = gather(
            earlier.dataset,
            store=earlier.store,
            ledger=ledger,
            embeddings_root=str(tmp_path / "embeddings"),
        )
    assert sorted(head.name for head in material.heads) == ["mlp", "svm"]
    page = write_report(material, tmp_path / "report.html").read_text()
    assert "kitchen" in page
    version = earlier.reports["svm"]["version"]
    (decision,) = promote(earlier.store, "kitchen-task", [version])
    assert decision.version == version
