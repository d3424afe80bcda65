"""Embedding sets on disk: whole parts, resumable, verified."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coinml.errors import InvalidInputError, LocalError
from coinml.specs import EncoderSpec, SetSpec
from coinml.store import EmbeddingSet, VideoRows, list_sets

DIM = 8
ENCODER = EncoderSpec(
    encoder="tiny",
    architecture="videomae",
    weights_sha256="0" * 64,
    resize=32,
    crop=(32, 32),
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    frames=16,
    clips=3,
    dim=DIM,
)
SPEC = SetSpec(encoder=ENCODER, dataset="mini")


def rows(video_id: str, *, sha: str = "aa", value: float = 0.0, clips: int = 3) -> VideoRows:
    base = np.arange(clips * DIM, dtype=np.float32).reshape(clips, DIM) / 16
    return VideoRows(
        video_id=video_id,
        file_sha256=sha,
        timestamps_s=np.arange(clips * 16, dtype=np.float64).reshape(clips, 16) / 25,
        decoder="pyav",
        frames_decoded=16 * clips,
        frames_substituted=0,
        dtype="float32",
        embeddings=base + value,
    )


@pytest.fixture
def embeddings(tmp_path: Path) -> EmbeddingSet:
    return EmbeddingSet.open(str(tmp_path), "mini", SPEC, create=True)


def test_what_is_appended_is_read_back(embeddings: EmbeddingSet) -> None:
    embeddings.append([rows("b", value=1), rows("-a")])
    embeddings.append([rows("c", value=2)])
    table = embeddings.clips()
    assert table.column_names == [
        "video_id",
        "file_sha256",
        "start_s",
        "end_s",
        "clip",
        "timestamps_s",
        "decoder",
        "frames_decoded",
        "frames_substituted",
        "dtype",
        "embedding",
    ]
    vector = table.schema.field("embedding").type
    assert (str(vector.value_type), vector.list_size) == ("halffloat", 8)
    assert table.column("video_id").to_pylist() == ["-a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert table.column("clip").to_pylist() == [0, 1, 2] * 3
    assert table.column("timestamps_s").to_pylist()[1] == rows("b").timestamps_s[1].tolist()
    assert embeddings.done() == {(name, None, None, "aa") for name in ("-a", "b", "c")}


def test_a_video_is_the_mean_over_its_clips(embeddings: EmbeddingSet) -> None:
    embeddings.append([rows("b", value=1), rows("a", clips=2)])
    videos = embeddings.videos()
    assert list(videos.columns) == [
        "video_id",
        "file_sha256",
        "start_s",
        "end_s",
        "clips",
        *(f"e{index:04d}" for index in range(DIM)),
    ]
    assert videos["video_id"].tolist() == ["a", "b"]
    assert videos["clips"].tolist() == [2, 3]
    expected = np.stack([rows("a", clips=2).embeddings.mean(0), rows("b").embeddings.mean(0) + 1])
    matrix = videos.filter(like="e0").to_numpy()
    assert matrix.dtype == np.float32
    np.testing.assert_allclose(matrix, expected)


def test_an_empty_set_has_its_columns(embeddings: EmbeddingSet) -> None:
    videos = embeddings.videos()
    assert len(videos) == 0
    assert list(videos.columns)[3:6] == ["end_s", "clips", "e0000"]
    assert embeddings.done() == set()
    assert embeddings.append([]) is None
    assert embeddings.parts() == []


def test_another_file_of_a_video_replaces_it_and_nothing_is_counted_twice(
    embeddings: EmbeddingSet,
) -> None:
    embeddings.append([rows("a", sha="old", value=5), rows("b")])
    embeddings.append([rows("a", sha="new", clips=2), rows("b", value=1)])
    videos = embeddings.videos().set_index("video_id")
    assert videos.loc["a", "file_sha256"] == "new"
    assert videos["clips"].to_dict() == {"a": 2, "b": 3}
    assert videos.loc["b", "e0000"] == pytest.approx(rows("b").embeddings.mean(0)[0] + 1)
    assert embeddings.videos({"a": "new"})["video_id"].tolist() == ["a"]
    assert embeddings.videos({"a": "gone"})["video_id"].tolist() == []


def test_extents_are_kept_apart(embeddings: EmbeddingSet) -> None:
    segment = replace(rows("a"), start_s=1.0, end_s=2.5)
    embeddings.append([segment, replace(segment, start_s=3.0, end_s=4.0)])
    assert embeddings.done() == {("a", 1.0, 2.5, "aa"), ("a", 3.0, 4.0, "aa")}
    assert embeddings.clips().num_rows == 6


def test_each_extent_of_a_video_has_a_mean_of_its_own(embeddings: EmbeddingSet) -> None:
    first = replace(rows("a", value=1), start_s=1.0, end_s=2.5)
    second = replace(rows("a", value=2), start_s=1.0, end_s=4.0)
    # As a segment whose file came anew, and one that begins where the first did.
    embeddings.append([second, rows("b"), replace(first, file_sha256="old")])
    embeddings.append([rows("a"), first])
    videos = embeddings.videos()
    assert videos["video_id"].tolist() == ["a", "a", "a", "b"]
    spans = videos[["start_s", "end_s"]].fillna(-1).to_numpy().tolist()
    assert spans == [[-1, -1], [1, 2.5], [1, 4], [-1, -1]]
    assert videos["clips"].tolist() == [3] * 4
    offset = videos["e0000"] - rows("a").embeddings.mean(0)[0]
    assert offset.tolist() == [0, 1, 2, 0]
    assert len(embeddings.videos({"a": "aa"})) == 3


def test_sets_are_found_by_spec_fingerprint_and_listing(
    embeddings: EmbeddingSet, tmp_path: Path
) -> None:
    other = SetSpec(encoder=replace(ENCODER, clips=4), dataset="mini")
    EmbeddingSet.open(str(tmp_path), "mini", other, create=True)
    EmbeddingSet.open(str(tmp_path), "coin", replace(SPEC, dataset="coin"), create=True)
    found = list_sets(str(tmp_path), "mini")
    assert {each.spec.fingerprint for each in found} == {SPEC.fingerprint, other.fingerprint}
    assert len(list_sets(str(tmp_path))) == 3
    again = EmbeddingSet.open(str(tmp_path), "mini", fingerprint=SPEC.fingerprint)
    assert again.spec == SPEC
    assert json.loads(Path(again.path, "spec.json").read_text())["fingerprint"] == SPEC.fingerprint
    with pytest.raises(InvalidInputError, match=SPEC.fingerprint):
        EmbeddingSet.open(str(tmp_path), "mini", fingerprint="123456123456")


def test_the_set_fingerprint_follows_its_fields() -> None:
    specs = [SPEC, replace(SPEC, dataset="coin"), replace(SPEC, extent="annotated")]
    assert len({spec.fingerprint for spec in specs}) == 3


def test_vectors_that_do_not_fit_are_refused(embeddings: EmbeddingSet) -> None:
    with pytest.raises(InvalidInputError, match="8"):
        embeddings.append([replace(rows("a"), embeddings=np.zeros((3, 9), np.float32))])
    with pytest.raises(InvalidInputError, match="float16"):
        embeddings.append([replace(rows("a"), embeddings=np.full((3, DIM), 1e6, np.float32))])
    assert embeddings.parts() == []


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_part_is_noticed_whenever_it_is_read(embeddings: EmbeddingSet, harm: str) -> None:
    embeddings.append([rows("a")])
    name = embeddings.append([rows("b", value=3)])
    path = Path(embeddings.path, str(name))
    content = bytearray(path.read_bytes())
    if harm == "flip":
        vector = (rows("b").embeddings + 3).astype(np.float16)[1].tobytes()
        place = content.index(vector)
        content[place] ^= 1
    path.write_bytes(content if harm == "flip" else content[: len(content) // 2 * (harm == "cut")])
    assert [problem.part for problem in embeddings.verify()] == [name]
    with pytest.raises(LocalError, match=str(name)):
        embeddings.videos()
    embeddings.set_aside(str(name))
    assert embeddings.verify() == []
    assert embeddings.videos()["video_id"].tolist() == ["a"]


def test_a_part_that_cannot_be_read_counts_as_not_done(
    embeddings: EmbeddingSet, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings.append([rows("a")])
    Path(embeddings.path, str(embeddings.append([rows("b")]))).write_bytes(b"PAR1")
    with pytest.raises(LocalError):
        embeddings.done()
    assert embeddings.done(set_aside=True) == {("a", None, None, "aa")}
    assert "set aside" in caplog.text
    assert len(embeddings.parts()) == 1


def test_a_set_lives_in_any_fsspec_place() -> None:
    root = "memory://bucket/embeddings"
    there = EmbeddingSet.open(root, "mini", SPEC, create=True)
    there.append([rows("a"), rows("b")])
    again = EmbeddingSet.open(root, "mini", fingerprint=SPEC.fingerprint)
    assert again.videos()["video_id"].tolist() == ["a", "b"]
    assert len(list_sets(root)) == 1


def test_a_full_or_forbidden_disk_is_this_machines_fault(tmp_path: Path) -> None:
    (tmp_path / "mini").write_text("a file where a folder should be")
    with pytest.raises(LocalError):
        EmbeddingSet.open(str(tmp_path), "mini", SPEC, create=True)


def test_a_disk_that_fills_up_leaves_no_half_part(embeddings: EmbeddingSet) -> None:
    embeddings.append([rows("a")])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(LocalError, match="part-"):
            embeddings.append([rows("b")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert embeddings.videos()["video_id"].tolist() == ["a"]
    assert sorted(path.suffix for path in Path(embeddings.path).iterdir()) == [".json", ".parquet"]


_APPEND_FOREVER = """
import sys
from tests.unit.test_store import SPEC, EmbeddingSet, rows
there = EmbeddingSet.open(sys.argv[1], "mini", SPEC, create=True)
number = 0
while True:
    there.append([rows(f"{sys.argv[2]}-{number}-{i}") for i in range(40)])
    number += 1
"""


def test_writers_that_are_killed_leave_only_whole_parts(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for round_ in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _APPEND_FOREVER, str(tmp_path), f"{round_}{name}"], cwd=root
            )
            for name in "ab"
        ]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if len(list(tmp_path.glob(f"mini/{SPEC.fingerprint}/part-*"))) > 6 * (round_ + 1):
                break
            time.sleep(0.01)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
    there = EmbeddingSet.open(str(tmp_path), "mini", SPEC)
    assert there.verify() == []
    assert len(there.parts()) > 18
    videos = there.videos()
    assert len(videos) == len(there.done()) == 40 * len(there.parts())
    assert (videos["clips"] == 3).all()
