"""Scoring a folder: each file once, nothing lost, windows compared, late labels measured."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest

from coinml.embedding_sets.table import feature_columns
from coinml.errors import InvalidInputError, LocalError
from coinml.media import write_video
from coinml.monitoring import score_files
from coinml.monitoring.options import ScoreOptions
from coinml.monitoring.reference import read_reference
from coinml.monitoring.run_scoring import ScoreReport, run_scoring
from coinml.monitoring.score_store import ScoreStore, store_of
from coinml.registry.video_classifier import VideoClassifier
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import MODEL, Trained


class Scoring:
    """A home with a folder of new videos, and the kitchen's champion."""

    def __init__(self, home: Path, trained: Trained) -> None:
        self.settings = Settings(home=home)
        self.trained = trained
        self.folder = home / "data" / "incoming" / "kitchen"
        self.folder.mkdir(parents=True)
        self.store = store_of(self.settings.data_dir, MODEL)

    def add(self, *ids: str) -> None:
        for one in ids:
            shutil.copyfile(self.trained.material.videos[one], self.folder / f"{one}.mp4")

    def run(self, **options: Any) -> ScoreReport:
        given = ScoreOptions(**{"settle_s": 0, **options})
        report = run_scoring(self.settings, self.trained.store, MODEL, "kitchen", given)
        assert report is not None
        return report


@pytest.fixture(scope="module", autouse=True)
def _one_loaded_model() -> Iterator[None]:
    """The model is loaded once for these tests: that takes longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        loaded: dict[str, Any] = {}
        load = score_files._load

        def load_once(store: MlflowStore, uri: str) -> Any:
            if uri not in loaded:
                loaded[uri] = load(store, uri)
            return loaded[uri]

        patch.setattr(score_files, "_load", load_once)
        yield


@pytest.fixture
def scoring(tmp_path: Path, trained: Trained) -> Scoring:
    return Scoring(tmp_path / "home", trained)


BOIL, CUT, FRY = "Boil0______", "Cut0_______", "Fry0_______"


def test_each_file_is_classified_once(scoring: Scoring) -> None:
    scoring.add(BOIL, CUT)
    first = scoring.run()
    assert (first.scored.files, first.scored.scored) == (2, 2)
    assert scoring.run().scored.scored == 0
    scoring.add(FRY)
    assert scoring.run().scored.scored == 1
    rows = scoring.store.read()
    assert list(rows["path"]) == [f"{one}.mp4" for one in (BOIL, CUT, FRY)]
    assert list(rows["label"]) == ["Boil", "Cut", "Fry"]
    assert rows["error"].isna().all()
    assert set(rows["version"]) == {first.version}
    assert set(rows["encoder_fingerprint"]) == {scoring.trained.material.spec.encoder.fingerprint}
    assert str(rows["scored_at"].dt.tz) == "UTC"
    table = scoring.trained.material.table.set_index("video_id")
    for one, vector in zip((BOIL, CUT, FRY), rows["embedding"], strict=True):
        expected = table.loc[one, feature_columns(table)].to_numpy(dtype=np.float32)
        np.testing.assert_allclose(vector.astype(np.float32), expected, atol=2e-3)


def test_content_under_another_name_has_the_same_answer(scoring: Scoring) -> None:
    scoring.add(BOIL)
    scoring.run()
    (scoring.folder / "deeper").mkdir()
    shutil.copyfile(scoring.folder / f"{BOIL}.mp4", scoring.folder / "deeper" / "copy.mp4")
    report = scoring.run()
    assert (report.scored.scored, report.scored.repeated, report.classified) == (0, 1, 1)
    rows = scoring.store.read()
    assert list(rows["label"]) == ["Boil", "Boil"]
    assert scoring.run().scored.repeated == 0


def test_a_broken_file_is_recorded_and_stops_no_other(scoring: Scoring) -> None:
    (scoring.folder / "a.mp4").write_bytes(b"no video" * 100)
    scoring.add(CUT)
    report = scoring.run()
    assert report.scored.scored == 1
    ((path, error),) = report.scored.failed
    assert path == "a.mp4"
    assert "a.mp4" in error
    again = scoring.run()
    assert (again.scored.failed, again.scored.unread) == ((), ())
    # It is replaced by a whole one.
    shutil.copyfile(scoring.trained.material.videos[FRY], scoring.folder / "a.mp4")
    assert scoring.run().scored.scored == 1
    assert list(scoring.store.read()["label"].fillna("")) == ["Cut", "", "Fry"]


def test_a_file_that_has_just_changed_waits(scoring: Scoring) -> None:
    scoring.add(BOIL, CUT, FRY)
    an_hour_s, file = 3600, scoring.folder / f"{BOIL}.mp4"
    os.utime(file, (time.time() - an_hour_s,) * 2)
    # A wrong clock's time in the future is no reason to wait for it.
    os.utime(scoring.folder / f"{CUT}.mp4", (time.time() + 100 * an_hour_s,) * 2)
    report = scoring.run(settle_s=600)
    assert (report.scored.scored, report.scored.waiting) == (2, 1)
    assert scoring.run(settle_s=0).scored.scored == 1


def test_a_file_that_changes_while_it_is_classified_waits(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(BOIL, CUT)
    answer = VideoClassifier.answer_files

    def answer_files(classifier: VideoClassifier, files: list[str]) -> Any:
        with (scoring.folder / f"{BOIL}.mp4").open("ab") as file:
            file.write(b"more")
        return answer(classifier, files)

    # The moment between hashing and decoding cannot be hit from outside.
    with monkeypatch.context() as patch:
        patch.setattr(VideoClassifier, "answer_files", answer_files)
        report = scoring.run()
    assert (report.scored.scored, report.scored.waiting) == (1, 1)
    assert scoring.run().scored.scored == 1


def test_a_copy_does_not_get_the_answer_of_what_its_twin_became(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring.add(BOIL)
    twin = scoring.folder / "zz-twin.mp4"
    shutil.copyfile(scoring.folder / f"{BOIL}.mp4", twin)
    answer = VideoClassifier.answer_files

    def answer_files(classifier: VideoClassifier, files: list[str]) -> Any:
        shutil.copyfile(scoring.trained.material.videos[CUT], files[0])
        return answer(classifier, files)

    # As above; the two have one content, of which the first file is decoded.
    with monkeypatch.context() as patch:
        patch.setattr(VideoClassifier, "answer_files", answer_files)
        report = scoring.run()
    assert (report.scored.scored, report.scored.waiting) == (0, 2)
    scoring.run()
    rows = scoring.store.read().set_index("path")
    assert rows.loc[twin.name, "label"] == "Boil"
    assert rows.loc[f"{BOIL}.mp4", "label"] == "Cut"


def test_an_interrupted_run_goes_on_where_it_was(
    scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_files, "_AT_ONCE", 2)
    ids = [f"Boil{number}______" for number in range(5)]
    scoring.add(*ids)

    class Interrupting:
        def begin(self, stage: str, total: int | None) -> None: ...
        def end(self, stage: str) -> None: ...
        def advance(self, stage: str, items: int, total: int | None) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress.listening(Interrupting()):
        scoring.run()
    assert len(scoring.store.read()) == 2
    assert scoring.run().scored.scored == 3
    assert list(scoring.store.read()["path"]) == [f"{one}.mp4" for one in ids]


def test_two_runs_do_not_write_at_once(scoring: Scoring) -> None:
    scoring.add(BOIL)
    with scoring.store.writing(), pytest.raises(LocalError, match="another process"):
        scoring.run()
    assert scoring.run().scored.scored == 1


def noise_videos(folder: Path, count: int) -> None:
    for number in range(count):
        rng = np.random.default_rng(1000 + number)
        frames = rng.integers(0, 255, (24, 48, 64, 3), dtype=np.uint8)
        write_video(folder / f"noise{number:02d}.mp4", iter(frames), fps=12)


def test_full_windows_are_compared_once(scoring: Scoring) -> None:
    scoring.add(*scoring.trained.material.videos)
    first = scoring.run(window=20, looks=1)
    assert first.notes == ()
    (window,) = first.windows
    assert set(window["tests"]) == {"embeddings", "class_mix", "confidence"}
    assert (window["start"], window["stop"], first.pending) == (0, 20, 7)
    assert "embeddings" not in first.drift
    assert scoring.run(window=20, looks=1).windows == first.windows
    noise_videos(scoring.folder, 13)
    last = scoring.run(window=20, looks=1)
    assert [one["stop"] for one in last.windows] == [20, 40]
    assert "embeddings" in last.drift
    assert "differs from" in str(last)
    record = scoring.store.latest()
    assert record is not None
    assert record["drift"] == list(last.drift)


@pytest.fixture
def _without_reference(trained: Trained) -> Iterator[None]:
    """The champion as an earlier coinml has registered it."""
    # Others of this process may have trained into the same store.
    own = {report.run_id for report in trained.reports.values()}
    found = trained.store.artifact_root.rglob("tables/reference.parquet")
    kept = [path for path in found if own & set(path.parts)]
    assert len(kept) == 2
    for path in kept:
        path.rename(path.with_suffix(".away"))
    yield
    for path in kept:
        path.with_suffix(".away").rename(path)


@pytest.mark.usefixtures("_without_reference")
def test_an_earlier_version_says_that_it_kept_no_vectors(trained: Trained) -> None:
    found = read_reference(trained.store, trained.reports["svm"].run_id)
    assert "earlier coinml" in found.note
    assert found.predicted.embeddings is None
    assert len(found.predicted.labels) == len(found.predicted.scores) == 12


def test_the_reference_is_a_sample_of_what_was_trained_on(trained: Trained) -> None:
    found = read_reference(trained.store, trained.reports["mlp"].run_id)
    assert found.note == ""
    table = trained.material.table
    vectors = found.predicted.embeddings
    assert vectors is not None
    expected = table[feature_columns(table)].to_numpy(dtype=np.float32)
    assert len(vectors) == len(expected) == 27
    mean = vectors.astype(np.float32).mean(axis=0)
    np.testing.assert_allclose(mean, expected.mean(axis=0), atol=2e-3)


def test_late_labels_become_accuracy(scoring: Scoring, tmp_path: Path) -> None:
    scoring.add(BOIL, CUT, FRY, "Fry1_______")
    table = tmp_path / "labels.csv"
    table.write_text(
        f"path,label\n{BOIL}.mp4,Boil\n{scoring.folder}/{CUT}.mp4,Cut\n{FRY}.mp4,Bake\nnew.mp4,Cut\n"
    )
    report = scoring.run(labels=str(table))
    (one,) = report.accuracies
    assert (one.version, one.videos) == (report.version, 3)
    assert one.accuracy.value == pytest.approx(2 / 3)
    assert one.accuracy.low == pytest.approx(0.2077, abs=1e-3)
    assert report.unscored == 1
    table.write_text(
        f"path,label,group\n{BOIL}.mp4,Boil,a\n{CUT}.mp4,Cut,a\n{FRY}.mp4,Bake,b\n"
        "Fry1_______.mp4,Bake,b\n"
    )
    (grouped,) = scoring.run(labels=str(table)).accuracies
    assert grouped.accuracy.value == 0.5
    assert "groups" in grouped.accuracy.caveat
    table.write_text(f"path,label\n{BOIL}.mp4,Boil\n{BOIL}.mp4,Cut\n")
    scoring.add("Cut1_______")
    with pytest.raises(InvalidInputError, match=r"line 3.*'Boil'.*'Cut'"):
        scoring.run(labels=str(table))
    # It was refused before the work.
    assert len(scoring.store.read()) == 4


def test_a_bucket_is_read_like_a_folder(scoring: Scoring) -> None:
    # fsspec's own store in memory: not local, with listings like those of a bucket.
    bucket = fsspec.filesystem("memory")
    for name in (f"new/{BOIL}.mp4", f"new/deep/{CUT}.mp4", "new/.hidden.mp4", "new/notes.txt"):
        source = scoring.trained.material.videos[CUT if "Cut" in name else BOIL]
        bucket.pipe_file(f"/{name}", source.read_bytes())
    try:
        report = scoring.run(folder="memory://new")
        assert (report.scored.files, report.scored.scored) == (2, 2)
        assert list(scoring.store.read()["path"]) == [f"{BOIL}.mp4", f"deep/{CUT}.mp4"]
        assert scoring.run(folder="memory://new").scored.scored == 0
    finally:
        bucket.rm("/new", recursive=True)


def test_without_a_folder_or_a_champion_nothing_is_done(scoring: Scoring) -> None:
    shutil.rmtree(scoring.folder)
    none_there = scoring.run()
    assert none_there.scored.files == 0
    assert none_there.notes == (f"{scoring.folder}: no video file in it or below it",)
    none = run_scoring(
        scoring.settings, scoring.trained.store, "other-task", "other", ScoreOptions()
    )
    assert none is None


def test_a_named_folder_that_is_none_is_refused(scoring: Scoring) -> None:
    scoring.add(BOIL)
    with pytest.raises(InvalidInputError, match=r"mistyped: there is no such folder"):
        scoring.run(folder=str(scoring.folder / "mistyped"))
    with pytest.raises(InvalidInputError, match=rf"{BOIL}\.mp4: is a file; name its folder"):
        scoring.run(folder=str(scoring.folder / f"{BOIL}.mp4"))
    assert scoring.store.latest() is None


def test_the_parts_are_read_by_pandas_as_the_guide_says(scoring: Scoring) -> None:
    scoring.add(BOIL)
    scoring.run()
    parts = sorted(scoring.store.folder.glob("part-*.parquet"))
    assert list(pd.read_parquet(parts)["label"]) == ["Boil"]


def test_parts_are_merged_and_read_in_order(tmp_path: Path) -> None:
    store = ScoreStore(tmp_path / "scores")
    with store.writing():
        for number in range(5):
            store.append([{"path": f"{number}.mp4", "version": 1}])
        first = store.folder / "part-00000000.parquet"
        kept = first.read_bytes()
        store.merge_parts(most=3)
        assert [one.name for one in store.folder.glob("part-*")] == [
            "part-00000000-00000004.parquet"
        ]
        # A kill before the merged parts are removed leaves them.
        first.write_bytes(kept)
        store.append([{"path": "5.mp4", "version": 1}])
    assert list(store.read(["path"])["path"]) == [f"{number}.mp4" for number in range(6)]
    first.write_bytes(kept[:-20])
    (store.folder / "part-00000000-00000004.parquet").unlink()
    with pytest.raises(LocalError, match=r"part-00000000\.parquet: cannot be read"):
        store.read()
