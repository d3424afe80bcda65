"""Comparing two runs by what they logged to MLflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError
from coinml.ledger import Attempt, FileFacts, Ledger
from coinml.tracking.compare_runs import compare_runs
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_log import RunLog
from tests.helpers.kitchen_dataset import Trained

LABELS = ("Boil", "Cut")


def run(store: MlflowStore, head: str, right: Sequence[bool], *, first: int = 0) -> str:
    """A run whose predictions for the test videos `first`, `first` + 1, … are right or wrong."""
    labels = [LABELS[i % 2] for i in range(first, first + len(right))]
    answers = [
        label if fine else LABELS[1 - LABELS.index(label)]
        for label, fine in zip(labels, right, strict=True)
    ]
    ids = [f"video{i}" for i in range(first, first + len(right))]
    table = pd.DataFrame({"video_id": ids, "split": "test", "label": labels, "predicted": answers})
    with store.run("coin-task", head, tags={"head": head}) as log:
        log.table("predictions", table)
    return log.run_id


def test_the_paired_test_uses_the_common_videos(store: MlflowStore) -> None:
    mlp = run(store, "mlp", [True] * 10 + [False] * 20)
    svm = run(store, "svm", [True] * 25, first=5)
    found = compare_runs(store, mlp, svm)
    result = found.result
    assert (found.head_a, found.head_b, found.split) == ("mlp", "svm", "test")
    assert result.n == 25
    assert (result.mcnemar.b, result.mcnemar.c) == (0, 20)
    assert result.mcnemar.p_value == pytest.approx(2 * 0.5**20)
    assert len(result.discordant) == 20
    assert set(result.discordant["right"]) == {"b"}
    text = str(found)
    assert "on the same 25 test videos" in text
    assert text.endswith("(0 against 20): svm is better")
    assert str(compare_runs(store, svm, mlp)).endswith("(20 against 0): svm is better")


def test_a_difference_within_chance_is_reported_as_such(store: MlflowStore) -> None:
    mlp, svm = run(store, "mlp", [True] * 9 + [False]), run(store, "svm", [False] + [True] * 9)
    assert str(compare_runs(store, mlp, svm)).endswith(
        "(1 against 1): no difference that these videos could show"
    )


def test_two_runs_of_one_head_are_named_with_their_ids(store: MlflowStore) -> None:
    first, second = run(store, "mlp", [True, False]), run(store, "mlp", [True, True])
    found = compare_runs(store, first, second)
    assert (found.head_a, found.head_b) == (f"mlp {first[:8]}", f"mlp {second[:8]}")


def test_a_comparison_converts_to_plain_values(store: MlflowStore) -> None:
    mlp, svm = run(store, "mlp", [True, False, True]), run(store, "svm", [True, True, True])
    content = compare_runs(store, mlp, svm).as_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["videos"] == 3
    assert (content["only_a_right"], content["only_b_right"]) == (0, 1)
    (row,) = content["discordant"]
    assert row == {
        "video_id": "video1",
        "label": "Cut",
        "predicted_a": "Boil",
        "predicted_b": "Cut",
        "right": "b",
    }
    assert content["per_class"] == [
        {"class": "Cut", "support": 1, "correct_a": 0, "correct_b": 1, "difference": 1},
        {"class": "Boil", "support": 2, "correct_a": 2, "correct_b": 2, "difference": 0},
    ]


def test_the_ledger_adds_titles_and_links(store: MlflowStore, tmp_path: Path) -> None:
    videos = [
        Video(video_id=f"video{i}", label=LABELS[i % 2], subset="testing", split="test")
        for i in range(3)
    ]
    here = tmp_path / "video1.mp4"
    here.write_bytes(b"not looked at")
    facts = FileFacts(
        path=str(here),
        size_bytes=13,
        mtime_ns=here.stat().st_mtime_ns,
        sha256="0" * 64,
        media_duration_s=1.0,
        title="How to cut",
    )
    now = datetime.now(UTC)
    mlp, svm = run(store, "mlp", [True, False, True]), run(store, "svm", [True, True, False])
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        for name, link in (("coin", "https://www.youtube.com/watch?v=video1"), ("mini", str(here))):
            ledger.register(Dataset(name=name, videos=tuple(videos)))
            ledger.record_success(
                name,
                "video1",
                file=facts,
                attempt=Attempt(run_id="r", started_at=now, seconds=1.0, size_bytes=13),
            )
            RunLog(store.client(), svm).tags({"dataset": name})
            rows = compare_runs(store, mlp, svm, ledger=ledger).as_dict()["discordant"]
            assert (rows[0]["title"], rows[0]["link"]) == ("How to cut", link)
            assert rows[1]["title"] is None
            assert json.loads(json.dumps(rows)) == rows
        # A ledger without this dataset is accepted.
        RunLog(store.client(), svm).tags({"dataset": "another"})
        rows = compare_runs(store, mlp, svm, ledger=ledger).as_dict()["discordant"]
        assert [(row["title"], row["link"]) for row in rows] == [(None, None)] * 2


def test_runs_that_cannot_be_compared_are_refused(store: MlflowStore) -> None:
    mlp, svm = run(store, "mlp", [True] * 3), run(store, "svm", [True] * 3, first=50)
    with pytest.raises(InvalidInputError, match="no video in common"):
        compare_runs(store, mlp, svm)
    with pytest.raises(InvalidInputError, match="no run 'f00'"):
        compare_runs(store, mlp, "f00")
    with pytest.raises(InvalidInputError, match="split 'dev': one of train, val, test"):
        compare_runs(store, mlp, svm, split="dev")
    with store.run("coin-task", "bare", tags={}) as bare:
        pass
    with pytest.raises(InvalidInputError, match="has no table 'predictions'"):
        compare_runs(store, mlp, bare.run_id)


def test_trained_heads_can_be_compared_on_every_split(trained: Trained) -> None:
    mlp, svm = (trained.reports[head].run_id for head in ("mlp", "svm"))
    sizes = [
        compare_runs(trained.store, mlp, svm, split=split).result.n
        for split in ("train", "val", "test")
    ]
    assert sizes == [15, 6, 6]


def test_a_recorded_comparison_is_written_to_the_second_run(trained: Trained) -> None:
    mlp, svm = (trained.reports[head].run_id for head in ("mlp", "svm"))
    found = compare_runs(trained.store, mlp, svm, record=True)
    again = compare_runs(trained.store, mlp, svm, record=True)
    assert str(again) == str(found)
    client = trained.store.client()
    figures = {entry.path for entry in client.list_artifacts(svm, "figures")}
    assert {"figures/comparison.png", "figures/class_differences.png"} <= figures
    classes = trained.store.read_table(svm, "class_differences")
    assert classes["support"].sum() == found.result.n
    assert classes["difference"].sum() == found.result.mcnemar.c - found.result.mcnemar.b
    metrics = trained.store.read_run(svm).data.metrics
    assert metrics["versus/test_difference"] == found.result.difference.value
    assert metrics["versus/test_mcnemar_p"] == found.result.mcnemar.p_value
    table = trained.store.read_table(svm, "discordant")
    assert len(table) == found.result.mcnemar.b + found.result.mcnemar.c
    tags = trained.store.read_run(svm).data.tags
    assert tags["compared_with"] == mlp
    assert float(tags["mcnemar_p"]) == found.result.mcnemar.p_value
    assert trained.store.read_run(svm).info.status == "FINISHED"
    # A comparison on another split is stored next to it.
    compare_runs(trained.store, mlp, svm, split="val", record=True)
    figures = {entry.path for entry in client.list_artifacts(svm, "figures")}
    assert {"figures/comparison.png", "figures/comparison_val.png"} <= figures
    assert len(trained.store.read_table(svm, "discordant")) == len(table)
