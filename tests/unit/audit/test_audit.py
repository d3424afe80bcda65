"""An audit: what it finds of flipped labels, copies and stills, and what it leaves alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cleanlab.filter import find_label_issues

from coinml.audit import Audit, audit, log_audit
from coinml.audit.labels import doubtful_labels
from coinml.audit.out_of_fold import out_of_fold
from coinml.audit.proposals import check_proposals, write_proposals
from coinml.audit.run_audit import latest_audit
from coinml.audit.vectors import clip_spread, near_duplicates, outliers
from coinml.data.corrections import corrected, read_corrections
from coinml.errors import InvalidInputError
from coinml.media import write_video
from coinml.media.film_strips import film_strips
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import EmbeddedDataset, training_data


def drawn(
    *, classes: int = 12, each: int = 30, spread: float = 1.5, flipped: float = 0.05, seed: int = 0
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray, set[str]]:
    """A table, its vectors, its classes, and the ids whose labels were flipped."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(classes), each)
    x = rng.normal(size=(classes, 32))[truth] + spread * rng.normal(size=(len(truth), 32))
    x = x.astype(np.float32)
    wrong = rng.choice(len(truth), round(flipped * len(truth)), replace=False)
    y = truth.copy()
    y[wrong] = (truth[wrong] + rng.integers(1, classes, len(wrong))) % classes
    table = pd.DataFrame(
        {
            "video_id": [f"v{place:04d}" for place in range(len(y))],
            "label": [f"c{one:03d}" for one in y],
            "split": rng.choice(["train", "val", "test"], len(y), p=[0.6, 0.2, 0.2]),
        }
        | {f"e{column:04d}": x[:, column] for column in range(x.shape[1])}
    )
    return table, x, y, {str(table["video_id"][place]) for place in wrong}


def score(found: set[str], flips: set[str]) -> tuple[float, float]:
    return len(found & flips) / max(len(found), 1), len(found & flips) / len(flips)


def test_flipped_labels_are_found_more_precisely_than_by_cleanlabs_default() -> None:
    precisions, recalls, of_cleanlab = [], [], []
    for seed in range(3):
        table, x, y, flips = drawn(seed=seed)
        proba = out_of_fold(x, y, list(table["video_id"]), seed=seed)
        found = doubtful_labels(table, proba, y)
        precision, recall = score(set(found["video_id"]), flips)
        precisions.append(precision)
        recalls.append(recall)
        theirs = set(table["video_id"][find_label_issues(y, proba, n_jobs=1)])
        of_cleanlab.append(score(theirs, flips)[0])
        assert found["label_probability"].is_monotonic_increasing
        assert (found["suggested_probability"] >= 10 * found["label_probability"]).all()
    assert np.mean(precisions) >= 0.9
    assert np.mean(recalls) >= 0.5
    assert np.mean(precisions) > np.mean(of_cleanlab)


@pytest.mark.parametrize(("spread", "most"), [(1.0, 0), (1.5, 0.015), (2.5, 0.04)])
def test_without_flips_there_are_few_false_alarms(spread: float, most: float) -> None:
    table, x, y, _ = drawn(spread=spread, flipped=0)
    proba = out_of_fold(x, y, list(table["video_id"]))
    found = doubtful_labels(table, proba, y)
    assert len(found) <= most * len(table)
    assert len(found) <= find_label_issues(y, proba, n_jobs=1).sum()


def test_a_model_sees_no_row_of_a_group_that_it_judges() -> None:
    table, x, y, _ = drawn(flipped=0)
    # Each video is there twice; the second time all of them have the next class.
    twice, moved = np.concatenate([x, x]), np.concatenate([y, (y + 1) % 12])
    ids = [*table["video_id"], *table["video_id"]]
    proba = out_of_fold(twice, moved, ids)
    np.testing.assert_allclose(proba[: len(x)], proba[len(x) :], atol=1e-6)
    assert proba.sum(axis=1) == pytest.approx(1)


def test_one_class_cannot_be_audited() -> None:
    with pytest.raises(InvalidInputError, match="two classes or more"):
        out_of_fold(np.zeros((4, 2), dtype=np.float32), np.zeros(4, dtype=np.int64), list("abcd"))


def test_copies_are_found_within_and_across_sides() -> None:
    table, *_ = drawn(flipped=0, spread=3)
    features = [name for name in table if str(name).startswith("e0")]
    table.loc[5, features] = table.loc[100, features]
    table.loc[7, features] = table.loc[8, features]
    table["split"] = "train"
    table.loc[100, "split"] = "test"
    found = near_duplicates(table, {"v0001": "aa", "v0200": "aa", "v0300": "bb"})
    pairs = {
        (row.video_id, row.twin_id): (row.by, bool(row.contradicting)) for row in found.itertuples()
    }
    assert pairs == {
        ("v0005", "v0100"): ("embedding", True),
        ("v0001", "v0200"): ("file", True),
        ("v0007", "v0008"): ("embedding", False),
    }
    assert found["contradicting"].tolist() == [True, True, False]


def test_segments_of_one_video_are_no_copies() -> None:
    table, *_ = drawn(flipped=0)
    table = table.assign(sample_id=table["video_id"] + "#1")
    features = [name for name in table if str(name).startswith("e0")]
    table.loc[5, features] = table.loc[6, features]
    table.loc[5, "video_id"] = table.loc[6, "video_id"]
    assert near_duplicates(table, {"v0006": "aa"}).empty


def test_a_video_unlike_all_others_is_an_outlier() -> None:
    table, *_ = drawn(flipped=0, spread=0.5)
    features = [name for name in table if str(name).startswith("e0")]
    rng = np.random.default_rng(9)
    table.loc[17, features] = (40 * rng.normal(size=len(features))).astype(np.float32)
    assert outliers(table)["video_id"][0] == "v0017"
    assert outliers(table.head(5)).empty


def test_clips_that_do_not_differ_have_no_spread() -> None:
    rng = np.random.default_rng(0)
    clips = {f"v{n}": rng.normal(size=(8, 16)).astype(np.float16) for n in range(5)}
    clips["still"] = clips["v0"][:1].repeat(8, axis=0)
    clips["single"] = clips["v0"][:1]
    spread = clip_spread(clips)
    assert spread["still"] < 0.01
    assert spread["v1"] == pytest.approx(1, abs=0.3)
    assert "single" not in spread


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """A moving, a still, a black and a broken video."""
    folder = tmp_path_factory.mktemp("films")
    make_video(folder / "moving.mp4")
    grey = np.full((48, 64, 3), 120, dtype=np.uint8)
    write_video(folder / "still.mp4", (grey for _ in range(50)), fps=25)
    write_video(folder / "black.mp4", (grey // 30 for _ in range(50)), fps=25)
    (folder / "broken.mp4").write_bytes(b"nothing")
    return folder


def test_film_strips_show_what_is_still_and_what_is_black(films: Path) -> None:
    names = ("moving", "still", "black", "broken")
    ticks: list[None] = []
    strips = dict(
        film_strips(
            {name: str(films / f"{name}.mp4") for name in names}, tick=lambda: ticks.append(None)
        )
    )
    assert list(strips) == list(names)
    assert len(ticks) == 4
    looks = {name: (strip.still, strip.black, bool(strip.jpeg)) for name, strip in strips.items()}
    assert looks == {
        "moving": (False, False, True),
        "still": (True, False, True),
        "black": (True, True, True),
        "broken": (False, False, False),
    }
    assert strips["moving"].jpeg[:3] == b"\xff\xd8\xff"
    assert len(strips["moving"].jpeg) < 20_000


@pytest.fixture(scope="module")
def found(material: EmbeddedDataset, films: Path) -> Audit:
    """An audit of the drawn dataset with a wrong train and a wrong test label, and a still."""
    table = material.table.copy()
    for video_id, label in (("Boil0______", "Fry"), ("Fry8_______", "Cut")):
        table.loc[table["video_id"] == video_id, "label"] = label
    clips = dict(material.clips)
    clips["Cut1_______"] = clips["Cut1_______"][:1].repeat(2, axis=0)
    data = training_data(
        "attentive", EmbeddedDataset(**{**vars(material), "clips": clips}), table=table
    )
    paths = {name: str(path) for name, path in material.videos.items()}
    return audit(data, paths | {"Cut1_______": str(films / "still.mp4")})


def test_an_audit_of_drawn_videos(found: Audit) -> None:
    assert found.videos == 27
    by_id = found.suspects.set_index("video_id")
    assert by_id.loc["Boil0______", ["split", "label", "suggested"]].tolist() == [
        "train",
        "Fry",
        "Boil",
    ]
    assert set(by_id.index) == {"Boil0______", "Fry8_______"}
    assert found.stills["video_id"].tolist() == ["Cut1_______"]
    assert found.strips["Boil0______"].jpeg
    assert found.notes == ()


def test_test_labels_are_flagged_and_not_among_the_proposals(found: Audit, tmp_path: Path) -> None:
    assert set(found.suspects["split"]) == {"train", "test"}
    write_proposals(found, tmp_path / "proposed.csv")
    (one,) = read_corrections(tmp_path / "proposed.csv")
    assert (one.video_id, one.old, one.new, one.who) == (
        "Boil0______",
        "Fry",
        "Boil",
        "coinml audit",
    )


def test_proposals_of_ids_with_a_minus_come_back_and_are_no_formulas(
    found: Audit, tmp_path: Path
) -> None:
    suspects = found.suspects[found.suspects["split"] != "test"].assign(
        video_id="-oil0______", suggested="=Boil"
    )
    write_proposals(dataclasses.replace(found, suspects=suspects), tmp_path / "proposed.csv")
    assert ",=Boil," not in (tmp_path / "proposed.csv").read_text()
    (one,) = read_corrections(tmp_path / "proposed.csv")
    assert (one.video_id, one.new) == ("-oil0______", "=Boil")


def test_videos_with_a_correction_are_not_proposed_again(found: Audit, tmp_path: Path) -> None:
    write_proposals(found, tmp_path / "proposed.csv", {"Boil0______"})
    assert read_corrections(tmp_path / "proposed.csv") == []


def test_proposals_never_become_corrections_by_themselves(
    material: EmbeddedDataset, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="give the proposals another name"):
        check_proposals(tmp_path / "corrections.csv")
    (tmp_path / "mine.csv").touch()
    with pytest.raises(InvalidInputError, match="exists"):
        check_proposals(tmp_path / "mine.csv")
    assert corrected(material.dataset, tmp_path / "corrections.csv") is material.dataset


def test_the_run_has_tables_and_pictures(
    found: Audit, material: EmbeddedDataset, store: MlflowStore
) -> None:
    assert latest_audit(store, "kitchen-task") == {}
    run_id = log_audit(found, training_data("svm", material), store, "kitchen-task")
    run = store.read_run(run_id)
    assert run.data.metrics["audit/suspects"] == 2
    assert run.data.tags["kind"] == "audit"
    assert store.read_figure(run_id, "suspects") is not None
    assert store.read_figure(run_id, "stills") is not None
    pd.testing.assert_frame_equal(latest_audit(store, "kitchen-task")["suspects"], found.suspects)
