from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from coinml.data.records import Video
from coinml.embedding_sets.table import (
    build_table,
    clips_by_video,
    feature_columns,
    ids_digest,
    permute_labels,
    split_samples,
    table_digest,
)
from coinml.errors import InvalidInputError


def video(video_id: str, label: str, split: str) -> Video:
    subset = "testing" if split == "test" else "training"
    return Video(video_id=video_id, label=label, subset=subset, split=split)  # type: ignore[arg-type]


VIDEOS = [
    video("-a", "tea", "train"),
    video("b", "soup", "train"),
    video("c", "tea", "val"),
    video("d", "soup", "test"),
    video("lost", "soup", "test"),
]


def embeddings(ids: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame({"video_id": ids, "file_sha256": "0" * 64, "clips": 8})
    for column in range(3):
        frame[f"e{column:04d}"] = [10 * column + row for row in range(len(ids))]
    return frame


def test_the_table_has_the_embedded_videos_in_their_order() -> None:
    table = build_table(VIDEOS, embeddings(["d", "c", "b", "-a", "stranger"]))
    assert list(table.columns) == ["video_id", "label", "split", "e0000", "e0001", "e0002"]
    assert list(table["video_id"]) == ["-a", "b", "c", "d"]
    assert table["e0001"].tolist() == [13.0, 12.0, 11.0, 10.0]
    assert table["e0000"].dtype == np.float32


def test_a_dataset_without_embeddings_is_refused_with_a_hint() -> None:
    with pytest.raises(InvalidInputError, match="none of the dataset's 5 videos is embedded"):
        build_table(VIDEOS, embeddings(["stranger"]))


def test_a_video_embedded_twice_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'b'"):
        build_table(VIDEOS, embeddings(["b", "b"]))


def test_a_table_without_embeddings_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no embedding columns"):
        feature_columns(pd.DataFrame({"video_id": ["a"], "extent": [1]}))


def test_samples_are_aligned() -> None:
    parts = split_samples(build_table(VIDEOS, embeddings(["-a", "b", "c", "d"])))
    assert list(parts) == ["train", "val", "test"]
    train = parts["train"]
    assert train.classes == ("soup", "tea")
    assert train.ids == ("-a", "b")
    assert train.y.tolist() == [1, 0]
    assert train.x.tolist() == [[0.0, 10.0, 20.0], [1.0, 11.0, 21.0]]
    assert train.x.dtype == np.float32
    assert train.y.dtype == np.int64
    assert len(train.take([1])) == 1
    assert train.take(np.array([False, True])).ids == ("b",)


def test_an_empty_split_is_named() -> None:
    with pytest.raises(InvalidInputError, match="in the test split"):
        split_samples(build_table(VIDEOS, embeddings(["-a", "b", "c"])))


def test_training_on_one_class_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="two classes or more, and has 1 of 2"):
        split_samples(build_table(VIDEOS, embeddings(["-a", "c", "d"])))


def test_a_label_outside_the_given_classes_is_named() -> None:
    with pytest.raises(InvalidInputError, match="soup"):
        split_samples(build_table(VIDEOS, embeddings(["-a", "b", "c", "d"])), classes=["tea"])


def test_a_class_without_training_videos_is_reported_and_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = build_table(VIDEOS, embeddings(["-a", "b", "c", "d"]))
    with caplog.at_level(logging.WARNING, logger="coinml.embedding_sets.table"):
        parts = split_samples(table, classes=["rice", "soup", "tea"])
    assert parts["test"].classes == ("rice", "soup", "tea")
    assert "no training video for 1 of 3 classes: rice" in caplog.text


def test_ids_digest_ignores_order_and_differs_between_sets() -> None:
    assert ids_digest(["b", "-a"]) == ids_digest(("-a", "b"))
    assert ids_digest(["a", "b"]) != ids_digest(["ab"])
    assert len(ids_digest([])) == 12


def test_table_digest_depends_on_labels_splits_and_values() -> None:
    table = build_table(VIDEOS, embeddings(["-a", "b", "c", "d"]))
    digests = {table_digest(table)}
    for column, value in (("label", "rice"), ("split", "val"), ("e0002", 0.5)):
        other = table.copy()
        other.loc[1, column] = value
        digests.add(table_digest(other))
    assert len(digests) == 4
    assert table_digest(table.copy()) in digests


def test_permutation_shuffles_labels_within_each_split() -> None:
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "video_id": [f"v{i}" for i in range(90)],
            "label": generator.choice(["a", "b", "c"], 90),
            "split": ["train"] * 50 + ["val"] * 20 + ["test"] * 20,
            "e0000": generator.normal(size=90),
        }
    )
    shuffled = permute_labels(table, seed=3)
    assert not shuffled["label"].equals(table["label"])
    for split in ("train", "val", "test"):
        before = table[table["split"] == split]["label"].value_counts()
        after = shuffled[shuffled["split"] == split]["label"].value_counts()
        assert before.to_dict() == after.to_dict()
    assert shuffled.drop(columns="label").equals(table.drop(columns="label"))
    assert permute_labels(table, seed=3).equals(shuffled)


def rows(*entries: tuple[str, str, int, list[float]]) -> pa.Table:
    ids, hashes, clips, vectors = zip(*entries, strict=True)
    values = pa.array(np.array(vectors, dtype=np.float16).ravel())
    return pa.table(
        {
            "video_id": list(ids),
            "file_sha256": list(hashes),
            "clip": list(clips),
            "embedding": pa.FixedSizeListArray.from_arrays(values, 2),
        }
    )


def test_clips_are_in_order_and_from_the_current_file() -> None:
    table = rows(
        ("b", "new", 1, [3, 4]),
        ("a", "only", 0, [5, 6]),
        ("b", "old", 0, [9, 9]),
        ("b", "new", 0, [1, 2]),
        ("c", "only", 0, [7, 8]),
    )
    clips = clips_by_video(table, {"a": "only", "b": "new"})
    assert {key: value.tolist() for key, value in clips.items()} == {
        "a": [[5, 6]],
        "b": [[1, 2], [3, 4]],
    }
    assert clips["a"].dtype == np.float16
    assert set(clips_by_video(table)) == {"a", "b", "c"}
    assert clips_by_video(table, {}) == {}


def test_samples_hold_the_clips_that_are_given() -> None:
    table = build_table(VIDEOS, embeddings(["-a", "b", "c", "d"]))
    clips = {i: np.full((1 + (i == "b"), 3), n, np.float16) for n, i in enumerate(table.video_id)}
    train = split_samples(table, clips=clips)["train"]
    assert train.clips is not None
    assert train.clips.shape == (2, 2, 3)
    assert np.isnan(train.clips[0, 1]).all()
    assert train.clips[1].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert train.take([1]).clips is not None
    assert np.array_equal(train.take([1]).clips, train.clips[1:])  # type: ignore[arg-type]
    assert split_samples(table)["train"].clips is None
    del clips["c"]
    with pytest.raises(InvalidInputError, match="no clips of 1 videos of the table"):
        split_samples(table, clips=clips)
