"""Cross-validation: no head is tested on what it, or a video of the same group, was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from coinml.data.records import Dataset, Split, Video
from coinml.errors import InvalidInputError
from coinml.evaluation.across_folds import accuracy_over_folds
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.cross_validation import SMALL_TEST, cross_validate, folds_wanted, most_folds
from coinml.training.cv_runs import cross_validate_head
from coinml.training.options import TrainOptions
from coinml.training.training_data import TrainingData
from tests.helpers.kitchen_dataset import MODEL, EmbeddedDataset, train

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def made(
    material: EmbeddedDataset,
    n: int,
    *,
    apart: float,
    groups: Sequence[str] | None = None,
    sha256s: dict[str, str] | None = None,
) -> TrainingData:
    """A class folder's videos with random embeddings, whose two classes are `apart`."""
    generator = np.random.default_rng(n)
    videos = tuple(
        Video(
            video_id=f"{'ab'[i % 2]}/{i:04}",
            label="ab"[i % 2],
            subset="training",
            split=SPLITS[i // 2 % 3],
            group=groups[i] if groups else None,
        )
        for i in range(n)
    )
    x = generator.normal(size=(n, 8)).astype(np.float32)
    x[:, 0] += apart * (np.arange(n) % 2)
    table = pd.DataFrame(
        {
            "video_id": [video.video_id for video in videos],
            "label": [video.label for video in videos],
            "split": [video.split for video in videos],
            **({"group": list(groups)} if groups else {}),
            **{f"e{i:04}": x[:, i] for i in range(8)},
        }
    )
    dataset = Dataset(name="kitchen", videos=videos, official_split=False)
    return TrainingData(dataset=dataset, table=table, spec=material.spec, sha256s=sha256s or {})


def test_every_video_is_tested_once_a_repeat(material: EmbeddedDataset) -> None:
    data = made(material, 61, apart=2.0)
    found = cross_validate("logreg", data, folds=5, repeats=2)
    told = found.predictions
    assert sorted(told["video_id"]) == sorted([*data.table["video_id"]] * 2)
    assert not told.duplicated(["video_id", "repeat"]).any()
    sizes = found.by_fold
    assert (sizes["train"] + sizes["val"] + sizes["test"] == 61).all()
    assert len(sizes) == 10
    # Stratified: each fold has both classes in proportion.
    shares = told.groupby(["repeat", "fold"])["label"].apply(lambda one: (one == "a").mean())
    assert shares.between(0.4, 0.6).all()
    # Repeats are different cuts.
    first, second = (told[told["repeat"] == one].set_index("video_id")["fold"] for one in (0, 1))
    assert (first != second.loc[first.index]).any()
    right = (told["label"] == told["predicted"]).mean()
    assert found.accuracy.value == pytest.approx(right)
    assert sizes["right"].sum() == (told["label"] == told["predicted"]).sum()
    assert "C" in sizes
    again = cross_validate("logreg", data, folds=5, repeats=2)
    pd.testing.assert_frame_equal(again.predictions, told)


def test_groups_and_copies_stay_in_one_fold(material: EmbeddedDataset) -> None:
    groups = [f"person {i // 4}" for i in range(80)]
    # Two persons have the same file: all videos of both are one group.
    data = made(material, 80, apart=1.0, groups=groups)
    data = replace(data, sha256s={"a/0000": "same", "b/0079": "same", "a/0002": "other"})
    found = cross_validate("knn", data, folds=4, repeats=2)
    assert found.groups == 19
    told = found.predictions
    for _, repeat in told.groupby("repeat"):
        assert (repeat.groupby("group")["fold"].nunique() == 1).all()
        folds = repeat.set_index("video_id")["fold"]
        assert folds["a/0000"] == folds["b/0079"]


def test_an_official_test_set_is_not_touched(material: EmbeddedDataset) -> None:
    data = made(material, 60, apart=1.0)
    data = replace(data, dataset=replace(data.dataset, official_split=True))
    found = cross_validate("knn", data, folds=3, repeats=1)
    tested = set(data.table["video_id"][data.table["split"] == "test"])
    assert tested
    assert tested.isdisjoint(found.predictions["video_id"])
    assert found.videos == 40


def test_labels_of_noise_score_chance(material: EmbeddedDataset) -> None:
    found = cross_validate("svm", made(material, 80, apart=0.0), folds=5, repeats=2)
    assert found.accuracy.low < 0.5 < found.accuracy.high
    assert found.accuracy.high - found.accuracy.low < 0.4


def test_the_interval_is_that_of_nadeau_and_bengio() -> None:
    right, sizes = np.array([12, 14, 15, 11, 13, 12, 14, 14, 13, 12]), np.full(10, 16)
    found = accuracy_over_folds(right, sizes, groups=80, folds=5)
    assert found.value == pytest.approx(130 / 160)
    variance = (1 / 10 + 1 / 4) * (right / 16).var(ddof=1)
    z, n = stats.t.ppf(0.975, 9), found.value * (1 - found.value) / variance
    n = min(n, 80)
    # Wilson's interval: where the score statistic is z.
    for end in (found.low, found.high):
        assert abs(found.value - end) / np.sqrt(end * (1 - end) / n) == pytest.approx(z)
    sure = accuracy_over_folds(sizes, sizes, groups=20, folds=5)
    assert sure.high == 1.0
    assert sure.low == pytest.approx(20 / (20 + z**2))


def test_the_interval_over_folds_covers_and_the_usual_one_does_not() -> None:
    generator = np.random.default_rng(0)
    means = generator.normal(size=(2, 20))
    means *= 1.3 / np.linalg.norm(means, axis=1, keepdims=True)

    def drawn(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = generator.permutation(np.arange(n) % 2)
        return means[y] + generator.normal(size=(n, 20)), y

    def answers(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> np.ndarray:
        centres = [x[y == c].mean(axis=0) for c in (0, 1)]
        return np.argmin([((new - one) ** 2).sum(axis=1) for one in centres], axis=0)

    new_x, new_y = drawn(4000)
    found, usual, truths = [], [], []
    for _ in range(200):
        x, y = drawn(80)
        right = []
        for _ in range(3):
            fold = generator.permutation(80) % 5
            for k in range(5):
                seen = fold != k
                right.append((answers(x[seen], y[seen], x[~seen]) == y[~seen]).sum())
                truths.append((answers(x[seen], y[seen], new_x) == new_y).mean())
        found.append(accuracy_over_folds(np.array(right), np.full(15, 16), groups=80, folds=5))
        of_fold = np.array(right) / 16
        usual.append(stats.t.ppf(0.975, 14) * of_fold.std(ddof=1) / np.sqrt(15))
    truth = np.mean(truths)
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.93
    assert np.mean([one.high - one.low for one in found]) < 0.27
    pairs = zip(found, usual, strict=True)
    assert np.mean([abs(one.value - truth) <= half for one, half in pairs]) < 0.85


def test_too_few_groups_or_classes_are_refused(material: EmbeddedDataset) -> None:
    groups = [f"person {i % 4}" for i in range(40)]
    with pytest.raises(InvalidInputError, match="cv 5: 2 to 4 folds are allowed"):
        cross_validate("knn", made(material, 40, apart=1.0, groups=groups), folds=5)
    with pytest.raises(ValueError, match="two folds or more"):
        TrainOptions(cv=1)


def test_a_default_takes_as_many_folds_as_there_are_groups(material: EmbeddedDataset) -> None:
    def folds(groups: int, n: int = 40) -> int:
        named = [f"person {i % groups}" for i in range(n)]
        return most_folds(made(material, n, apart=1.0, groups=named), 5)

    assert [folds(groups) for groups in (2, 3, 4, 5, 20)] == [0, 3, 4, 5, 5]
    data = made(material, 40, apart=3.0, groups=[f"person {i % 3}" for i in range(40)])
    found = cross_validate("knn", data, folds=most_folds(data, 5), repeats=1)
    assert (found.folds, found.groups) == (3, 3)


def test_small_folders_are_cross_validated_by_default(material: EmbeddedDataset) -> None:
    small, large = made(material, 60, apart=1.0), made(material, 3 * SMALL_TEST, apart=1.0)
    assert folds_wanted(small, None) == 5
    assert folds_wanted(large, None) == 0
    assert folds_wanted(small, 0) == 0
    assert folds_wanted(large, 10) == 10
    grouped = made(material, 3 * SMALL_TEST, apart=1.0, groups=["x", "y", "z"] * SMALL_TEST)
    assert folds_wanted(grouped, None) == 5
    official = replace(small, dataset=replace(small.dataset, official_split=True))
    assert folds_wanted(official, None) == 0


def test_a_cross_validation_is_a_run_that_is_found_again(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    data = made(material, 60, apart=2.0)
    report = cross_validate_head("knn", data, folds=3, repeats=2, store=store)
    run = store.read_run(report.run_id)
    assert run.data.tags["kind"] == "cv"
    assert run.data.metrics["cv/accuracy"] == report.accuracy.value
    assert len(store.read_table(report.run_id, "folds")) == 6
    assert len(store.read_table(report.run_id, "predictions")) == 120
    assert store.read_figure(report.run_id, "folds") is not None
    assert "60 videos in 60 independent groups" in run.data.tags["mlflow.note.content"]
    again = cross_validate_head("knn", data, folds=3, repeats=2, store=store)
    assert (again.reused, again.run_id) == (True, report.run_id)
    assert again.accuracy == report.accuracy
    other = cross_validate_head("knn", data, folds=4, repeats=2, store=store)
    assert not other.reused
    by_hand = cross_validate_head("knn", data, folds=3, repeats=2, options={"ks": [3]}, store=store)
    assert not by_hand.reused
    assert store.read_run(by_hand.run_id).data.params["ks"] == "[3]"
    assert set(store.read_table(by_hand.run_id, "folds")["k"].astype(str)) == {"3"}


def test_it_counts_as_a_look_at_the_test_videos(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    folder = replace(material, dataset=replace(material.dataset, official_split=False))
    data = TrainingData(dataset=folder.dataset, table=folder.table, spec=folder.spec)
    cross_validate_head("knn", data, folds=3, repeats=1, store=store)
    assert train("svm", store, folder).metrics["test_looks"] == 2
    assert store.find_runs(MODEL, {"kind": "cv"})
    # It has tested all videos, so that in any other cut too the test videos were looked at.
    sides = {"train": "train", "test": "val", "val": "test"}
    other = folder.table.assign(split=folder.table["split"].map(sides))
    assert train("knn", store, folder, table=other).metrics["test_looks"] == 2


def test_a_sweep_runs_inside_each_fold(
    material: EmbeddedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coinml.training import cross_validation

    seen = []
    real = cross_validation.sweep
    monkeypatch.setattr(
        cross_validation,
        "sweep",
        lambda head, fit, val, **more: (
            seen.append((len(fit), len(val))) or real(head, fit, val, **more)
        ),
    )
    found = cross_validate("knn", made(material, 40, apart=1.0), folds=2, repeats=1, trials=2)
    assert seen == list(zip(found.by_fold["train"], found.by_fold["val"], strict=True))
