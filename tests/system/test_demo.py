"""`make demo` as a new user runs it, and checks that its accuracies are genuine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from coinml.data.records import Dataset
from coinml.embedding_sets import list_sets
from coinml.embedding_sets.table import Samples, build_table, permute_labels, split_samples
from coinml.encoder.sampling import Sampling
from coinml.evaluation.evaluate import evaluate
from coinml.heads.mlp import train_mlp
from coinml.heads.svm import train_svm
from coinml.ledger import Ledger, LedgerRow
from coinml.media import ClipSpec, sample
from coinml.miniature.fault_plan import demo_fault_plan
from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT
from coinml.selection import Selection, miniature_dir

pytestmark = pytest.mark.stack

COMMAND = str(Path(sys.executable).parent / "coinml")


@dataclass(frozen=True)
class Demo:
    home: Path
    result: dict[str, Any]
    stderr: str

    @property
    def dataset(self) -> Dataset:
        return Selection().load(self.home / "data")

    @property
    def rows(self) -> list[LedgerRow]:
        with Ledger(f"sqlite:///{self.home / 'data' / 'ledger.db'}") as ledger:
            return ledger.rows("mini")

    def table(self) -> pd.DataFrame:
        (embedded,) = list_sets(str(self.home / "data" / "embeddings"), "mini")
        return build_table(self.dataset.videos, embedded.videos())


def coinml(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("COINML", "PREFECT", "MLFLOW"))
    }
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=home.parent,
        env=environment | {"COINML_HOME": str(home)},
        timeout=900,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    home = tmp_path_factory.mktemp("demo") / "home"
    run = coinml(home, "run", "--dataset", "mini", "--json")
    assert run.returncode == 0, run.stderr
    return Demo(home, json.loads(run.stdout), run.stderr)


@pytest.mark.timeout(900)
def test_gone_videos_are_recorded_and_flaky_ones_downloaded(demo: Demo) -> None:
    plan = demo_fault_plan(miniature_dir(demo.home / "data") / "COIN.json")["videos"]
    states = {row.video_id: row.state for row in demo.rows}
    assert len(states) >= 240
    gone = {i for i, answers in plan.items() if answers in (["404"], ["410"])}
    flaky = {i for i, answers in plan.items() if answers[-1] == "ok"}
    assert len(gone) >= 3
    assert len(flaky) >= 10
    assert {i for i, state in states.items() if state == "gone"} == gone
    assert {states[i] for i in flaky} == {"downloaded"}
    assert {i for i, state in states.items() if state == "corrupt"} == set(plan) - gone - flaky
    assert demo.result["collected"]["still_due"] == 0


def test_no_warning_or_traceback_is_printed(demo: Demo) -> None:
    for ugly in ("Traceback", "Warning", "WARNING", "CancelledError", "Downloading artifacts"):
        assert ugly not in demo.stderr


def test_the_better_head_recognises_the_tasks(demo: Demo) -> None:
    heads = demo.result["trained"]["heads"]
    assert {head["head"] for head in heads} == {"mlp", "svm"}
    best = max(heads, key=lambda head: head["metrics"]["test_accuracy"])["metrics"]
    assert best["test_majority_rate"] <= 0.2
    assert best["test_accuracy_low"] > 0.6
    assert sum(v.split == "test" for v in demo.dataset.videos) * best["test_coverage"] >= 100
    assert any(verdict["promoted"] for verdict in demo.result["verdicts"])
    assert demo.result["trained"]["comparison"]["videos"] >= 100


def test_a_second_run_reuses_everything(demo: Demo) -> None:
    run = coinml(demo.home, "run", "--dataset", "mini", "--json")
    assert run.returncode == 0, run.stderr
    again = json.loads(run.stdout)
    assert again["collected"]["asked"] == again["embedded"]["embedded"] == 0
    assert all(head["reused"] for head in again["trained"]["heads"]), recipes(demo.home)
    assert [head["version"] for head in again["trained"]["heads"]] == [
        head["version"] for head in demo.result["trained"]["heads"]
    ]


def recipes(home: Path) -> list[str]:
    """Each head's recipe, to show why a second run trained it again."""
    return [path.read_text() for path in sorted((home / "mlartifacts").rglob("recipe.json"))]


def test_every_task_run_is_on_record(demo: Demo) -> None:
    import sqlite3

    with sqlite3.connect(demo.home / "data" / "prefect" / "prefect.db") as connection:
        states = dict(
            connection.execute(
                "SELECT task_key, count(*) FROM task_run WHERE state_type IN "
                "('COMPLETED', 'FAILED') GROUP BY task_key"
            )
        )
        unfinished = connection.execute(
            "SELECT count(*) FROM task_run WHERE state_type NOT IN ('COMPLETED', 'FAILED')"
        ).fetchone()
    downloads = sum(n for key, n in states.items() if key.startswith("download_batch"))
    assert downloads == -(-len(demo.rows) // 20)
    assert unfinished == (0,)


def test_the_counts_of_status_add_up(demo: Demo) -> None:
    run = coinml(demo.home, "status", "--json")
    status = json.loads(run.stdout)
    assert status["total"] == len(demo.rows)
    assert status["total"] == (
        status["downloaded"] + status["pending"] + sum(status["faults"].values())
    )
    assert sum(side["total"] for side in status["by_split"].values()) == status["total"]


def test_the_report_has_every_section_in_one_page(demo: Demo, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    call = ("report", "--out", str(page), "--projections", "pca,lda", "--json")
    answer = json.loads(coinml(demo.home, *call).stdout)
    assert answer == {"path": str(page), "missing": []}
    text = page.read_text(encoding="utf-8")
    for part in ("coverage", "measured", "confusion", "map"):
        assert f'id="{part}"' in text
    assert "McNemar" in text
    # Synthetic videos are linked as local files.
    assert (demo.home / "data" / "videos" / "mini").as_uri() in text


def test_a_video_is_not_its_own_neighbour(demo: Demo) -> None:
    row = next(row for row in demo.rows if row.path)
    # An id may start with a dash.
    call = ("similar", "-k", "3", "--json", "--", row.video_id)
    near = json.loads(coinml(demo.home, *call).stdout)
    assert len(near) == 3
    assert row.video_id not in [one["video_id"] for one in near]


def test_predict_and_similar_answer_for_a_file(demo: Demo) -> None:
    row = next(row for row in demo.rows if row.subset == "testing" and row.path)
    broken = demo.home / "broken.mp4"
    broken.write_bytes(b"no video")
    run = coinml(demo.home, "predict", str(row.path), str(broken), "--json")
    assert run.returncode == 0, run.stderr
    good, bad = json.loads(run.stdout)
    assert good["label"] in {video.label for video in demo.dataset.videos}
    assert next(top["label"] for top in good["top5"]) == good["label"]
    assert (bad["label"], bool(bad["error"])) == (None, True)
    near = json.loads(coinml(demo.home, "similar", str(row.path), "-k", "3", "--json").stdout)
    assert near[0]["video_id"] == row.video_id
    assert len(near) == 3


@pytest.mark.timeout(900)
def test_a_copied_home_goes_on_and_the_original_stays_as_it_is(demo: Demo, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(demo.home, copy, symlinks=True)
    before = artifacts(demo.home)
    found = json.loads(coinml(copy, "doctor", "--json").stdout)
    (home,) = [one for one in found if one["subject"] == "home"]
    assert home["state"] == "failed"
    assert str(demo.home) in home["text"]
    refused = coinml(copy, "train", "--dataset", "mini")
    assert refused.returncode == 2
    assert "`coinml move-home`" in refused.stderr

    changed = json.loads(coinml(copy, "move-home", "--json").stdout)["changed"]
    assert changed["ledger videos.path"] == sum(row.path is not None for row in demo.rows)
    assert changed["mlflow model_versions.storage_location"] == 2
    again = json.loads(coinml(copy, "run", "--dataset", "mini", "--json").stdout)
    assert again["collected"]["asked"] == again["embedded"]["embedded"] == 0
    assert all(head["reused"] for head in again["trained"]["heads"])
    run = coinml(copy, "train", "--dataset", "mini", "--heads", "mlp", "--seed", "7", "--json")
    (trained,) = json.loads(run.stdout)["heads"]
    assert (trained["reused"], trained["version"]) == (False, 3)
    video = next((copy / "data" / "videos" / "mini").glob("*.mp4"))
    (answer,) = json.loads(coinml(copy, "predict", "--json", "--", str(video)).stdout)
    assert answer["label"]
    assert artifacts(demo.home) == before


def artifacts(home: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (home / "mlartifacts").rglob("*")}


def accuracies(table: pd.DataFrame) -> dict[str, float]:
    """Test accuracy of both heads on a table."""
    parts = split_samples(table)
    heads = {
        "mlp": train_mlp(parts["train"], parts["val"]),
        "svm": train_svm(parts["train"], parts["val"]),
    }
    return {
        name: evaluate(
            parts["test"].y, head.predict_proba(parts["test"].x), head.classes
        ).accuracy.value
        for name, head in heads.items()
    }


def with_features(demo: Demo, features: dict[str, np.ndarray[Any, Any]]) -> pd.DataFrame:
    matrix = np.stack(list(features.values())).astype(np.float32)
    columns = [f"e{index:04d}" for index in range(matrix.shape[1])]
    table = pd.DataFrame(matrix, columns=columns)
    table.insert(0, "video_id", list(features))
    return build_table(demo.dataset.videos, table)


def test_colour_alone_does_not_identify_the_tasks(demo: Demo) -> None:
    features = {}
    for row in demo.rows:
        if row.path:
            pixels = sample(row.path, ClipSpec(clips=1)).frames.reshape(-1, 3)
            features[row.video_id] = np.concatenate([pixels.mean(axis=0), pixels.std(axis=0)])
    for head, accuracy in accuracies(with_features(demo, features)).items():
        assert accuracy < 0.35, head


def test_an_encoder_with_random_weights_is_near_chance(demo: Demo) -> None:
    import torch
    from transformers import AutoConfig, VideoMAEModel

    from coinml.embedding.engine import embed
    from coinml.embedding.jobs import EmbedJob
    from coinml.embedding_sets import EmbeddingSet, SetSpec
    from coinml.encoder.clip_encoder import load_encoder

    folder = demo.home / "random-encoder"
    torch.manual_seed(0)
    VideoMAEModel(AutoConfig.from_pretrained(TINY_CHECKPOINT)).float().save_pretrained(folder)
    processor = "preprocessor_config.json"
    (folder / processor).write_text((TINY_CHECKPOINT / processor).read_text())
    encoder = load_encoder(str(folder), sampling=Sampling(clips=4))
    spec = SetSpec(encoder=encoder.spec, dataset="random")
    target = EmbeddingSet.open(str(demo.home / "random-sets"), "random", spec, create=True)
    jobs = [
        EmbedJob(video_id=row.video_id, path=row.path, file_sha256=row.sha256 or "")
        for row in demo.rows
        if row.path and row.state == "downloaded"
    ]
    embed(jobs, encoder, target)
    table = build_table(demo.dataset.videos, target.videos())
    for head, accuracy in accuracies(table).items():
        assert accuracy < 0.35, head


def test_accuracy_with_permuted_labels_is_at_chance(demo: Demo) -> None:
    table = demo.table()
    scores = []
    for seed in range(20):
        parts = split_samples(permute_labels(table, seed))
        head = train_mlp(parts["train"], parts["val"], epochs=15, seed=seed)
        scores.append(_accuracy(head.predict_proba(parts["test"].x), parts["test"]))
    chance = 1 / len(demo.dataset.classes)
    # Twenty draws of 130 videos: the mean's standard error is below 0.01.
    assert abs(float(np.mean(scores)) - chance) < 0.035
    assert np.std(scores) > 0


def _accuracy(proba: np.ndarray[Any, Any], samples: Samples) -> float:
    return float((proba.argmax(axis=1) == samples.y).mean())
