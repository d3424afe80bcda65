"""Embedding sets on disk: complete parts, resuming, verification."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coinml.embedding_sets import BrokenPartError, EmbeddingSet, find_set, find_sets, list_sets
from coinml.embedding_sets.listing import summarise
from coinml.embedding_sets.spec import SetSpec
from coinml.errors import InvalidInputError, LocalError
from tests.helpers.small_sets import DIM, ENCODER, SPEC, rows


@pytest.fixture
def embeddings(tmp_path: Path) -> EmbeddingSet:
    return EmbeddingSet.open(str(tmp_path), "mini", SPEC, create=True)


def test_appended_rows_are_read_back(embeddings: EmbeddingSet) -> None:
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


def test_embeddings_of_a_new_file_replace_those_of_the_old_one(
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
    # If the old file comes back, its vectors are still in the set.
    back = embeddings.videos({"a": "old"}).set_index("video_id")
    assert back.loc["a", "e0000"] == pytest.approx(rows("a").embeddings.mean(0)[0] + 5)


def test_extents_of_one_video_are_separate(embeddings: EmbeddingSet) -> None:
    segment = replace(rows("a"), start_s=1.0, end_s=2.5)
    embeddings.append([segment, replace(segment, start_s=3.0, end_s=4.0)])
    assert embeddings.done() == {("a", 1.0, 2.5, "aa"), ("a", 3.0, 4.0, "aa")}
    assert embeddings.clips().num_rows == 6


def test_each_extent_of_a_video_has_its_own_mean(embeddings: EmbeddingSet) -> None:
    first = replace(rows("a", value=1), start_s=1.0, end_s=2.5)
    second = replace(rows("a", value=2), start_s=1.0, end_s=4.0)
    # A segment of a new file, and a segment with the same start.
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
    odd = tmp_path / "a [strange] *?"
    EmbeddingSet.open(str(odd), "mini", SPEC, create=True)
    assert [each.spec for each in list_sets(str(odd))] == [SPEC]
    assert list_sets(str(tmp_path / "nowhere")) == []
    again = EmbeddingSet.open(str(tmp_path), "mini", fingerprint=SPEC.fingerprint)
    assert again.spec == SPEC
    assert json.loads(Path(again.path, "spec.json").read_text())["fingerprint"] == SPEC.fingerprint
    with pytest.raises(InvalidInputError, match=SPEC.fingerprint):
        EmbeddingSet.open(str(tmp_path), "mini", fingerprint="123456123456")


def test_the_set_fingerprint_follows_its_fields() -> None:
    specs = [SPEC, replace(SPEC, dataset="coin"), replace(SPEC, extent="annotated")]
    assert len({spec.fingerprint for spec in specs}) == 3


def test_vectors_of_another_length_or_not_finite_are_refused(embeddings: EmbeddingSet) -> None:
    with pytest.raises(InvalidInputError, match="8"):
        embeddings.append([replace(rows("a"), embeddings=np.zeros((3, 9), np.float32))])
    with pytest.raises(InvalidInputError, match="float16"):
        embeddings.append([replace(rows("a"), embeddings=np.full((3, DIM), 1e6, np.float32))])
    assert embeddings.parts() == []


@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_part_is_detected_on_every_read(embeddings: EmbeddingSet, harm: str) -> None:
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
    with pytest.raises(BrokenPartError, match=str(name)):
        embeddings.videos()
    embeddings.set_aside(str(name))
    assert embeddings.verify() == []
    assert embeddings.videos()["video_id"].tolist() == ["a"]


def test_damaged_vectors_are_set_aside_although_the_keys_are_whole(
    embeddings: EmbeddingSet, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings.append([rows("a")])
    name = str(embeddings.append([rows("b", value=3)]))
    path = Path(embeddings.path, name)
    content = bytearray(path.read_bytes())
    content[content.index((rows("b").embeddings + 3).astype(np.float16)[1].tobytes())] ^= 1
    path.write_bytes(content)
    assert len(embeddings.done(set_aside=True)) == 2
    assert [problem.part for problem in embeddings.set_aside_broken()] == [name]
    assert "`coinml embed` sets it aside and embeds its videos again" in caplog.text
    assert embeddings.done() == {("a", None, None, "aa")}
    assert Path(embeddings.path, f"bad-{name}").read_bytes() == content
    assert embeddings.set_aside_broken() == []


@pytest.mark.parametrize("harm", ["", "{", "[]", '{"encoder": 1}', "\x00" * 200])
def test_a_damaged_spec_is_written_again_by_the_one_who_knows_it(
    embeddings: EmbeddingSet, tmp_path: Path, harm: str
) -> None:
    embeddings.append([rows("a")])
    spec = Path(embeddings.path, "spec.json")
    content = spec.read_bytes()
    spec.write_text(harm)
    with pytest.raises(LocalError, match="`coinml embed`, with the options of the set, sets it"):
        EmbeddingSet.open(str(tmp_path), "mini", SPEC)
    healed = EmbeddingSet.open(str(tmp_path), "mini", SPEC, create=True)
    assert healed.done() == {("a", None, None, "aa")}
    assert spec.read_bytes() == content
    assert Path(embeddings.path, "bad-spec.json").read_text() == harm


def test_the_spec_of_another_set_is_not_replaced(embeddings: EmbeddingSet, tmp_path: Path) -> None:
    other = replace(SPEC, dataset="other")
    there = EmbeddingSet.open(str(tmp_path), "other", other, create=True)
    content = Path(there.path, "spec.json").read_bytes()
    Path(embeddings.path, "spec.json").write_bytes(content)
    with pytest.raises(LocalError, match="describes set"):
        EmbeddingSet.open(str(tmp_path), "mini", SPEC, create=True)
    assert Path(embeddings.path, "spec.json").read_bytes() == content


def test_videos_of_a_broken_part_are_not_done(
    embeddings: EmbeddingSet, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings.append([rows("a")])
    Path(embeddings.path, str(embeddings.append([rows("b")]))).write_bytes(b"PAR1")
    with pytest.raises(LocalError):
        embeddings.done()
    assert embeddings.done(set_aside=True) == {("a", None, None, "aa")}
    assert "set aside" in caplog.text
    assert len(embeddings.parts()) == 1


def test_an_unreachable_part_is_not_taken_for_broken(
    embeddings: EmbeddingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = EmbeddingSet.open("memory://unreachable", "mini", SPEC, create=True)
    there.append([rows("a")])

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(type(there.filesystem), "_open", refuse)
        with pytest.raises(LocalError, match="the network is down"):
            there.done(set_aside=True)
        with pytest.raises(LocalError, match="the network is down"):
            there.verify()
    assert there.done(set_aside=True) == {("a", None, None, "aa")}


def test_reading_starts_again_if_a_part_disappears(
    embeddings: EmbeddingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embeddings.append([rows("a"), rows("b")])
    listing, seen = EmbeddingSet.part_sizes, []

    def list_then_move(self: EmbeddingSet) -> dict[str, int]:
        found = listing(self)
        if not seen:
            Path(self.path, str(first)).rename(Path(self.path, "part-9.parquet"))
        seen.append(found)
        return found

    monkeypatch.setattr(EmbeddingSet, "part_sizes", list_then_move)
    assert embeddings.videos()["video_id"].tolist() == ["a", "b"]
    assert [list(found) for found in seen] == [[first], ["part-9.parquet"]]
    # Retries are limited for a part that stays missing.
    Path(embeddings.path, "part-99.parquet").symlink_to("nowhere")
    monkeypatch.setattr("coinml.embedding_sets.sets.sizes_in", lambda *_: {"part-99.parquet": 1})
    with pytest.raises(LocalError, match="no longer exists"):
        embeddings.done()


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda text: text[:40], "not the spec"),
        (lambda _: "[]", "not the spec"),
        (lambda text: text.replace('"clips": 3', '"clips": 4'), "it was altered"),
        (lambda text: text.replace('"mini"', '"maxi"'), "of 'maxi' and not"),
    ],
)
def test_a_spec_that_does_not_match_its_folder_is_refused(
    embeddings: EmbeddingSet, tmp_path: Path, harm: Callable[[str], str], says: str
) -> None:
    other = SetSpec(encoder=replace(ENCODER, clips=5), dataset="mini")
    EmbeddingSet.open(str(tmp_path), "mini", other, create=True)
    spec = Path(embeddings.path, "spec.json")
    spec.write_text(harm(spec.read_text()))
    for named in ({"spec": SPEC}, {"fingerprint": SPEC.fingerprint}):
        with pytest.raises(LocalError, match=says):
            EmbeddingSet.open(str(tmp_path), "mini", **named)
    with pytest.raises(LocalError, match=says):
        find_set(str(tmp_path), "mini", SPEC.fingerprint[:6])
    # Other sets are still found.
    assert [one.spec for one in list_sets(str(tmp_path))] == [other]
    sets, problems = find_sets(str(tmp_path))
    assert (len(sets), [problem.path for problem in problems]) == (1, [embeddings.path])


def test_a_set_is_found_by_a_prefix_of_its_fingerprint(
    embeddings: EmbeddingSet, tmp_path: Path
) -> None:
    root = str(tmp_path)
    assert find_set(root).path == find_set(root, "mini").path == embeddings.path
    other = EmbeddingSet.open(
        root, "mini", SetSpec(encoder=replace(ENCODER, clips=5), dataset="mini"), create=True
    )
    assert find_set(root, None, SPEC.fingerprint[:5]).path == embeddings.path
    with pytest.raises(InvalidInputError, match="several sets") as several:
        find_set(root, "mini")
    assert SPEC.fingerprint in str(several.value)
    assert other.spec.fingerprint in str(several.value)
    with pytest.raises(InvalidInputError, match=f"begins with 'ffff'.*{SPEC.fingerprint}"):
        find_set(root, "mini", "ffff")
    with pytest.raises(InvalidInputError, match=r"of 'moon'.*none yet"):
        find_set(root, "moon")


def test_the_summary_counts_current_rows(embeddings: EmbeddingSet) -> None:
    assert summarise(embeddings).newest is None
    embeddings.append([rows("a", sha="old"), replace(rows("b"), frames_substituted=2)])
    embeddings.append([rows("a", sha="new", clips=2), replace(rows("c"), decoder="decord")])
    segment = replace(rows("d"), start_s=0.0, end_s=1.0)
    embeddings.append([segment, replace(segment, start_s=1.0, end_s=2.0)])
    broken = str(embeddings.append([rows("e")]))
    Path(embeddings.path, broken).write_bytes(b"PAR1")
    found = summarise(embeddings)
    assert (found.videos, found.extents, found.clips) == (4, 5, 14)
    assert found.decoders == {"decord": 1, "pyav": 4}
    assert (found.frames_substituted, found.with_substitutes) == (2, 1)
    assert found.frames_decoded == 16 * (2 + 3 + 3 + 3 + 3)
    assert [(part.rows, part.current) for part in found.parts] == [(6, 3), (5, 5), (6, 6)]
    assert [problem.part for problem in found.broken] == [broken]
    assert found.newest is not None


def test_a_set_works_on_any_fsspec_file_system() -> None:
    root = "memory://bucket/embeddings"
    there = EmbeddingSet.open(root, "mini", SPEC, create=True)
    there.append([rows("a"), rows("b")])
    again = EmbeddingSet.open(root, "mini", fingerprint=SPEC.fingerprint)
    assert again.videos()["video_id"].tolist() == ["a", "b"]
    assert len(list_sets(root)) == 1


def test_a_full_or_read_only_disk_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / "mini").write_text("a file where a folder should be")
    with pytest.raises(LocalError):
        EmbeddingSet.open(str(tmp_path), "mini", SPEC, create=True)


def test_a_full_disk_leaves_no_incomplete_part(embeddings: EmbeddingSet) -> None:
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
from coinml.embedding_sets import EmbeddingSet
from tests.helpers.small_sets import SPEC, rows
there = EmbeddingSet.open(sys.argv[1], "mini", SPEC, create=True)
number = 0
while True:
    there.append([rows(f"{sys.argv[2]}-{number}-{i}") for i in range(40)])
    number += 1
"""


def test_killed_writers_leave_only_complete_parts(tmp_path: Path) -> None:
    for round_ in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _APPEND_FOREVER, str(tmp_path), f"{round_}{name}"],
                cwd=Path(__file__).parents[3],
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
