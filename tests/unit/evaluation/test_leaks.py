"""Videos in two splits are found under any id, and re-encoded copies too."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from coinml.data.records import Video
from coinml.embedding_sets.table import build_table
from coinml.encoder.sampling import Sampling
from coinml.evaluation.class_counts import class_counts, classes_without
from coinml.evaluation.leaks import (
    contradiction_texts,
    drop_leaks,
    find_contradictions,
    find_leaks,
)
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.kitchen_dataset import EmbeddedDataset, train


def table_of(vectors: np.ndarray, splits: list[str]) -> pd.DataFrame:
    ids = [f"v{i}" for i in range(len(vectors))]
    columns = pd.DataFrame(vectors, columns=[f"e{i:04d}" for i in range(vectors.shape[1])])
    labels = [f"class {i % 3}" for i in range(len(vectors))]
    front = pd.DataFrame({"video_id": ids, "label": labels, "split": splits})
    return pd.concat([front, columns.astype(np.float32)], axis=1)


def strangers(n: int = 300) -> pd.DataFrame:
    vectors = np.random.default_rng(0).normal(size=(n, 32)) + 5
    return table_of(vectors, [("train", "train", "val", "test")[i % 4] for i in range(n)])


def pairs(leaks: pd.DataFrame) -> list[tuple[str, str, str]]:
    return list(leaks[["video_id", "twin_id", "by"]].itertuples(index=False, name=None))


def test_unrelated_videos_are_no_leak() -> None:
    leaks = find_leaks(strangers(), {f"v{i}": f"file {i}" for i in range(300)})
    assert leaks.empty
    assert list(leaks.columns)[:3] == ["video_id", "split", "label"]


def test_the_same_file_is_found_in_any_two_splits_and_dropped_from_the_earlier() -> None:
    table = strangers()
    hashes = {f"v{i}": f"file {i}" for i in range(300)}
    # v0 and v1 train, v2 val, v3 test, v4 train: one file; v8 and v9 are both train.
    hashes |= dict.fromkeys(("v0", "v2", "v3"), "one") | dict.fromkeys(("v8", "v9"), "two")
    leaks = find_leaks(table, hashes)
    assert pairs(leaks) == [("v0", "v2", "file"), ("v0", "v3", "file"), ("v2", "v3", "file")]
    row = leaks.iloc[2]
    assert (row["split"], row["label"], row["twin_split"]) == ("val", "class 2", "test")
    kept = drop_leaks(table, leaks)
    assert set(table["video_id"]) - set(kept["video_id"]) == {"v0", "v2"}
    assert list(kept.columns) == list(table.columns)
    assert find_leaks(kept, hashes).empty


def test_one_file_under_two_labels_is_found_within_a_split_too() -> None:
    table = strangers()
    hashes = {f"v{i}": f"file {i}" for i in range(300)}
    # v8 and v9 are both train and of two classes; v1, v4, v7 are of one; v0, v2 of two splits.
    hashes |= dict.fromkeys(("v8", "v9"), "one") | dict.fromkeys(("v1", "v4", "v7"), "two")
    hashes |= dict.fromkeys(("v0", "v2"), "three")
    found = find_contradictions(table, hashes)
    assert found[["video_id", "label"]].to_numpy().tolist() == [
        ["v8", "class 2"],
        ["v9", "class 0"],
        ["v0", "class 0"],
        ["v2", "class 2"],
    ]
    assert contradiction_texts(found) == (
        "'v8' (class 2) = 'v9' (class 0)",
        "'v0' (class 0) = 'v2' (class 2)",
    )
    assert find_contradictions(table, {}).empty
    segments = table.assign(sample_id=[f"v#{i}" for i in range(300)], video_id="v")
    assert find_contradictions(segments, {"v": "file"}).empty


def test_a_training_names_one_file_under_two_labels(
    store: MlflowStore, material: EmbeddedDataset
) -> None:
    ids = material.table["video_id"][material.table["split"] == "train"].tolist()
    sha256s = {one: f"file {one}" for one in ids} | {ids[0]: "same", ids[-1]: "same"}
    labels = dict(material.table[["video_id", "label"]].to_numpy().tolist())
    told = (f"{ids[0]!r} ({labels[ids[0]]}) = {ids[-1]!r} ({labels[ids[-1]]})",)
    report = train("knn", store, material, sha256s=sha256s)
    assert report.contradictions == told
    assert report.metrics["contradictions"] == 1
    again = train("knn", store, material, sha256s=sha256s)
    assert (again.reused, again.contradictions) == (True, told)
    assert train("knn", store, material).contradictions == ()


def test_two_videos_with_many_segments_are_one_pair() -> None:
    table = strangers(40)
    # v0 (train) and v3 (test) in four segments each.
    again = pd.concat([table, *[table[table["video_id"].isin(["v0", "v3"])]] * 3])
    leaks = find_leaks(again.reset_index(drop=True), {"v0": "one", "v3": "one"})
    assert pairs(leaks) == [("v0", "v3", "file")]
    assert set(drop_leaks(again, leaks)["video_id"]) == set(table["video_id"]) - {"v0"}


def test_similar_embeddings_are_found_across_blocks() -> None:
    n = 9000
    generator = np.random.default_rng(1)
    vectors = generator.normal(size=(n, 16)).astype(np.float32)
    vectors[8999] = vectors[10] + 1e-3
    table = table_of(vectors, ["train"] * 4000 + ["val"] * 1000 + ["test"] * 4000)
    leaks = find_leaks(table, min_cosine=0.999)
    assert ("v10", "v8999", "embedding") in pairs(leaks)
    assert leaks["cosine"].min() >= 0.999
    assert len(leaks) <= 3


def test_similar_embeddings_of_all_videos_are_not_all_reported() -> None:
    # All point in one direction; they differ by 0.1 % of its length.
    generator = np.random.default_rng(2)
    along = generator.normal(size=(200, 1)) * np.ones((1, 24))
    vectors = along + 0.03 * generator.normal(size=(200, 24))
    vectors[199] = vectors[0]
    table = table_of(vectors, ["train"] * 100 + ["val"] * 50 + ["test"] * 50)
    leaks = find_leaks(table)
    assert ("v0", "v199", "embedding") in pairs(leaks)
    assert len(leaks) < 20


def test_a_re_encoded_copy_is_found_among_real_videos(
    tmp_path: Path, make_video: Callable[..., Path], tiny_encoder_dir: Path
) -> None:
    import av

    from coinml.encoder.clip_encoder import load_encoder
    from coinml.media import sample, write_video

    files = {f"drawn{i}": make_video(tmp_path / f"{i}.mp4", seed=i, seconds=1.5) for i in range(24)}
    with av.open(str(files["drawn0"])) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    copy = write_video(tmp_path / "copy.mp4", iter(frames), fps=25, crf=26)
    files["copy"] = copy
    assert copy.read_bytes() != files["drawn0"].read_bytes()
    encoder = load_encoder(tiny_encoder_dir, device="cpu", sampling=Sampling(clips=2, stride=1))
    vectors = [
        encoder.encode(list(sample(path, encoder.clip_spec()).frames)).mean(axis=0)
        for path in files.values()
    ]
    splits = ["train"] * 12 + ["val"] * 5 + ["test"] * 8
    videos = [
        Video(video_id=name, label="x", subset="training", split=split)
        for name, split in zip(files, splits, strict=True)
    ]
    embeddings = pd.DataFrame(np.array(vectors), columns=[f"e{i:04d}" for i in range(32)])
    embeddings.insert(0, "video_id", list(files))
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    leaks = find_leaks(build_table(videos, embeddings), hashes)
    assert pairs(leaks) == [("drawn0", "copy", "embedding")]


def test_a_planted_leak_is_reported_and_dropped(
    store: MlflowStore, material: EmbeddedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    table = material.table
    hashes = {video_id: f"file of {video_id}" for video_id in table["video_id"]}
    assert find_leaks(table, hashes).empty
    # A test video under another id among those for training, as a re-upload would be.
    hashes["Boil0______"] = hashes["Boil8______"]
    report = train("svm", store, material, sha256s=hashes)
    assert (report.metrics["leaks"], report.metrics["leaks_dropped"]) == (1, 0)
    leaks = store.read_table(report.run_id, "leaks")
    assert pairs(leaks) == [("Boil0______", "Boil8______", "file")]
    assert "Boil0______ and Boil8______" in caplog.text
    assert train("svm", store, material, sha256s=hashes).reused

    dropped = train("svm", store, material, sha256s=hashes, drop_leaks=True)
    assert not dropped.reused
    assert (dropped.metrics["leaks"], dropped.metrics["leaks_dropped"]) == (1, 1)
    predictions = store.read_table(dropped.run_id, "predictions")
    assert set(table["video_id"]) - set(predictions["video_id"]) == {"Boil0______"}
    assert store.read_run(dropped.run_id).data.params["train_videos"] == "14"
    again = train("svm", store, material, sha256s=hashes, drop_leaks=True)
    assert again.reused
    assert again.metrics["leaks_dropped"] == 1


def test_classes_without_videos_are_named(store: MlflowStore, material: EmbeddedDataset) -> None:
    table = material.table
    lost = table[~((table["label"] == "Cut") & (table["split"] == "test"))]
    report = train("svm", store, material, table=lost)
    assert report.classes_without == {"test": ("Cut",)}
    counts = store.read_table(report.run_id, "class_counts").set_index("class")
    assert counts.loc["Cut"].to_dict() == {
        "train": 5,
        "train_official": 6,
        "val": 2,
        "val_official": 2,
        "test": 0,
        "test_official": 3,
        "train_videos": 5,
    }
    assert train("svm", store, material, table=lost).classes_without == {"test": ("Cut",)}


def test_a_class_without_any_video_left_is_counted() -> None:
    table = pd.DataFrame(
        {"video_id": list("xyz"), "label": list("aab"), "split": ["train", "test", "train"]}
    )
    official = [("a", "train"), ("a", "test"), ("b", "train"), ("c", "train"), ("c", "test")]
    counts = class_counts(table, official)
    assert counts["class"].tolist() == ["a", "b", "c"]
    assert counts["train_official"].tolist() == [1, 1, 1]
    assert classes_without(counts) == {
        "train": ("c",),
        "val": ("a", "b", "c"),
        "test": ("b", "c"),
    }


def test_the_command_prints_classes_without_videos_and_leaks(
    capsys: pytest.CaptureFixture[str], material: EmbeddedDataset, store: MlflowStore
) -> None:
    from coinml_cli.result_tables import print_heads
    from tasks.summaries import TrainSummary

    table = material.table
    lost = table[~((table["label"] == "Cut") & (table["split"] == "test"))]
    hashes = dict.fromkeys(("Boil0______", "Boil8______"), "one file")
    for drop, said in ((False, "--drop-leaks drops them"), (True, "1 videos were dropped")):
        report = train("svm", store, material, table=lost, sha256s=hashes, drop_leaks=drop)
        print_heads(TrainSummary(dataset="kitchen", heads=(report,), comparison=None))
        text = " ".join(capsys.readouterr().out.split())
        assert "1 pairs of videos in different splits are the same file" in text
        assert said in text
        assert "no test video of 1 classes: Cut (tables/class_counts.csv)" in text
