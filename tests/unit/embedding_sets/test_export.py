"""Exporting a set as one file for other programs."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.export import export_set
from coinml.errors import InvalidInputError
from tests.helpers.small_sets import DIM, SPEC, rows


@pytest.fixture
def embeddings(tmp_path: Path) -> EmbeddingSet:
    there = EmbeddingSet.open(str(tmp_path / "sets"), "mini", SPEC, create=True)
    there.append([rows("fall/one.two", value=1), rows("-a", sha="old")])
    segment = replace(rows("cut", value=2, clips=2), start_s=1.0, end_s=2.5)
    there.append([rows("-a", sha="new"), segment, replace(segment, start_s=3.0, end_s=4.25)])
    return there


IDS = ["-a", "cut", "cut", "fall/one.two"]


def vectors(value: float, clips: int = 3) -> np.ndarray:
    return rows("x", value=value, clips=clips).embeddings


def test_npz_has_arrays_by_name(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    report = export_set(embeddings, tmp_path / "clips.npz", labels={"-a": "Cut", "cut": "Fry"})
    assert (report.videos, report.rows) == (4, 10)
    assert report.size_bytes == (tmp_path / "clips.npz").stat().st_size
    with np.load(tmp_path / "clips.npz") as found:
        assert found["video_id"].tolist() == ["-a"] * 3 + ["cut"] * 4 + ["fall/one.two"] * 3
        assert found["label"].tolist() == ["Cut"] * 3 + ["Fry"] * 4 + [""] * 3
        assert found["clip"].tolist() == [0, 1, 2, 0, 1, 0, 1, 0, 1, 2]
        assert found["file_sha256"].tolist()[0] == "new"
        np.testing.assert_array_equal(np.isnan(found["start_s"]), np.r_[[1] * 3, [0] * 4, [1] * 3])
        assert found["end_s"].tolist()[3:7] == [2.5, 2.5, 4.25, 4.25]
        assert found["timestamps_s"].shape == (10, 16)
        np.testing.assert_array_equal(found["timestamps_s"][7:], rows("x").timestamps_s)
        assert found["embeddings"].dtype == np.float16
        np.testing.assert_array_equal(found["embeddings"][7:], vectors(1))
        assert json.loads(str(found["spec"]))["fingerprint"] == SPEC.fingerprint
    export_set(embeddings, tmp_path / "videos.npz", level="videos")
    with np.load(tmp_path / "videos.npz") as found:
        assert found["video_id"].tolist() == IDS
        assert found["clips"].tolist() == [3, 2, 2, 3]
        assert "label" not in found
        assert found["embeddings"].dtype == np.float32
        expected = [vectors(0), vectors(2, 2), vectors(2, 2), vectors(1)]
        np.testing.assert_allclose(found["embeddings"], [each.mean(0) for each in expected])


def test_csv_has_one_line_per_row(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    report = export_set(embeddings, tmp_path / "x.csv", format="csv", labels={"-a": 'Cut, "x"'})
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == report.rows == 10
    assert (lines[0]["video_id"], lines[0]["label"], lines[0]["start_s"]) == ("-a", 'Cut, "x"', "")
    assert [line["clip"] for line in lines[3:5]] == ["0", "1"]
    assert float(lines[1]["first_frame_s"]) == rows("x").timestamps_s[1, 0]
    found = [[float(line[f"e{index:04d}"]) for index in range(DIM)] for line in lines[7:]]
    np.testing.assert_array_equal(found, vectors(1))


def samples(path: Path) -> dict[str, dict[str, Any]]:
    """Samples of a tar as webdataset groups them: consecutive files with one name up to a dot."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as tar:
        for entry in tar:
            folder, _, name = entry.name.rpartition("/")
            key, suffix = name.split(".", 1)
            content = tar.extractfile(entry)
            assert content is not None
            whole = f"{folder}/{key}" if folder else key
            found.setdefault(whole, {})[suffix] = content.read()
    return found


def test_tar_has_one_sample_per_video(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    export_set(embeddings, tmp_path / "x.tar", format="tar", labels={"cut": "Fry"})
    found = samples(tmp_path / "x.tar")
    assert list(found) == ["-a", "cut@1000-2500ms", "cut@3000-4250ms", "fall/one%2Etwo"]
    assert all(set(sample) == {"npy", "json"} for sample in found.values())
    cut = json.loads(found["cut@3000-4250ms"]["json"])
    assert (cut["video_id"], cut["label"]) == ("cut", "Fry")
    assert (cut["start_s"], cut["end_s"]) == (3.0, 4.25)
    last = json.loads(found["fall/one%2Etwo"]["json"])
    assert (last["video_id"], last["start_s"]) == ("fall/one.two", None)
    assert last["timestamps_s"] == rows("x").timestamps_s.tolist()
    array = np.load(io.BytesIO(found["fall/one%2Etwo"]["npy"]), allow_pickle=False)
    np.testing.assert_array_equal(array, vectors(1))
    export_set(embeddings, tmp_path / "y.tar", format="tar", level="videos")
    mean = np.load(io.BytesIO(samples(tmp_path / "y.tar")["-a"]["npy"]), allow_pickle=False)
    np.testing.assert_allclose(mean, vectors(0).mean(0))


def test_an_existing_file_is_replaced_only_on_request(
    embeddings: EmbeddingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.npz"
    path.write_text("mine")
    with pytest.raises(InvalidInputError, match="--force"):
        export_set(embeddings, path)
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export_set(embeddings, path, replace=True)
    assert path.read_text() == "mine"
    export_set(embeddings, path, replace=True)
    assert np.load(path)["clip"].shape == (10,)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["sets", "x.npz"]


@pytest.mark.parametrize(
    ("options", "says"),
    [({"format": "zip"}, "known: npz"), ({"level": "frames"}, "known: clips")],
)
def test_unknown_formats_and_levels_are_refused(
    embeddings: EmbeddingSet, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        export_set(embeddings, tmp_path / "x", **options)
    with pytest.raises(InvalidInputError, match="no folder"):
        export_set(embeddings, tmp_path / "nowhere" / "x.npz")
    empty = EmbeddingSet.open(str(tmp_path / "empty"), "mini", SPEC, create=True)
    with pytest.raises(InvalidInputError, match="is empty"):
        export_set(empty, tmp_path / "x.npz")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "sets"]


@pytest.mark.parametrize("video_id", ["/etc/x", "../up", "a//b", "//host/x", "a/./b", "C:\\x"])
def test_a_tar_member_stays_below_the_folder_where_it_is_unpacked(
    tmp_path: Path, video_id: str
) -> None:
    made = EmbeddingSet.open(str(tmp_path / "sets"), "mini", SPEC, create=True)
    made.append([rows(video_id), rows("a/b")])
    export_set(made, tmp_path / "x.tar", format="tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "out", filter="data")
    assert len(set(names)) == 4
    for name in names:
        assert (tmp_path / "out" / name).is_file()
        assert not name.startswith("/")
        assert not {"..", "."} & set(name.split("/"))
    assert {
        json.loads(sample["json"])["video_id"] for sample in samples(tmp_path / "x.tar").values()
    } == {
        video_id,
        "a/b",
    }
