"""A folder's split is recorded: no video changes its side while the folder grows."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from coinml.data.annotations import load_dataset
from coinml.data.records import Dataset
from coinml.errors import InvalidInputError, LocalError
from coinml.selection import Selection
from tests.unit.data.test_splits import touch


def sides(dataset: Dataset) -> dict[str, str]:
    return {video.video_id: video.split for video in dataset.videos}


def names(n: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [f"{label}/{generator.getrandbits(40):x}.mp4" for _ in range(n) for label in "ab"]


@pytest.mark.parametrize("group", [None, r"^(.)"])
def test_a_growing_folder_moves_no_video(tmp_path: Path, group: str | None) -> None:
    clips, data = tmp_path / "clips", tmp_path / "data"
    selection = Selection(dataset=f"folder:{clips}", group=group)
    files, before = names(60), {}
    for size in (12, 13, 14, 20, 40, 80, 120):
        touch(clips, *files[:size])
        now = sides(selection.load(data))
        assert len(now) == size
        assert {one: now[one] for one in before} == before
        before = now
    counts = Counter(before.values())
    if group is None:
        # New videos fill the quotas: the split stays 70/15/15.
        assert abs(counts["test"] - 18) <= 1
        assert abs(counts["val"] - 18) <= 1
    # Without a record, some of them move.
    assert sides(load_dataset(selection.dataset, group=group)).keys() == before.keys()


def test_without_a_record_the_first_cut_is_that_of_earlier_versions(tmp_path: Path) -> None:
    touch(tmp_path / "clips", *names(20))
    dataset = f"folder:{tmp_path / 'clips'}"
    assert sides(Selection(dataset=dataset).load(tmp_path)) == sides(load_dataset(dataset))


def test_a_part_of_the_classes_has_the_sides_of_the_whole(tmp_path: Path) -> None:
    # Persons are in both classes, so that the whole is cut by persons and not by class.
    touch(
        tmp_path / "clips", *[f"{c}/s{s:02}_{n}.mp4" for c in "ab" for s in range(9) for n in "xy"]
    )
    whole = Selection(dataset=f"folder:{tmp_path / 'clips'}", group=r"^s\d+")
    everything = sides(whole.load(tmp_path))
    part = sides(whole.model_copy(update={"classes": ("a",)}).load(tmp_path))
    assert part == {one: side for one, side in everything.items() if one.startswith("a/")}


def test_another_seed_or_grouping_is_another_cut(tmp_path: Path) -> None:
    touch(tmp_path / "clips", *names(40))
    plain = Selection(dataset=f"folder:{tmp_path / 'clips'}")
    first = sides(plain.load(tmp_path))
    other = sides(plain.model_copy(update={"split_seed": 1}).load(tmp_path))
    assert other != first
    assert Counter(other.values()) == Counter(first.values())
    assert sides(plain.load(tmp_path)) == first
    grouped = plain.model_copy(update={"group": "^.."}).load(tmp_path)
    by_group: dict[str | None, set[str]] = {}
    for video in grouped.videos:
        by_group.setdefault(video.group, set()).add(video.split)
    assert all(len(found) == 1 for found in by_group.values())


def test_a_deleted_video_that_comes_back_has_its_side(tmp_path: Path) -> None:
    files = names(10)
    touch(tmp_path / "clips", *files)
    selection = Selection(dataset=f"folder:{tmp_path / 'clips'}")
    first = sides(selection.load(tmp_path))
    gone = next(one for one, side in first.items() if side == "test")
    (tmp_path / "clips" / f"{gone}.mp4").unlink()
    assert gone not in sides(selection.load(tmp_path))
    touch(tmp_path / "clips", f"{gone}.mp4")
    assert sides(selection.load(tmp_path)) == first


def test_a_damaged_or_unwritable_record_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "clips", *names(10))
    selection = Selection(dataset=f"folder:{tmp_path / 'clips'}")
    selection.load(tmp_path)
    (record,) = (tmp_path / "splits").glob("clips-*.json")
    content = json.loads(record.read_text())
    for damaged, why in (
        ("{", "not JSON at line 1, character 2: Expecting property name"),
        ("", "not JSON at line 1, character 1: Expecting value"),
        ("[]", "field 'splits': None is no object"),
        ("{}", "field 'splits': None is no object"),
        ('{"splits": ["train"]}', r"field 'splits': \['train'\] is no object"),
        (
            json.dumps({**content, "splits": {"a/1": "dev"}}),
            "field 'splits', 'a/1': 'dev' is not one",
        ),
        (
            json.dumps({**content, "splits": {"a/1": ["val"]}}),
            r"field 'splits', 'a/1': \['val'\] is not one",
        ),
    ):
        record.write_text(damaged)
        says = rf"clips-\w+\.json: not the record of a split \({why}.*restore it, or delete it"
        with pytest.raises(InvalidInputError, match=says):
            selection.load(tmp_path)
    record.write_bytes(b'{"splits": {"caf\xe9": "val"}}')
    with pytest.raises(InvalidInputError, match="byte 16 is not UTF-8"):
        selection.load(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(LocalError, match="the split cannot be recorded"):
        selection.load(tmp_path / "file")


def test_an_expression_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *[f"{c}/person{s}_{n}.mp4" for c in "ab" for s in range(4) for n in range(2)])
    for group in (r"^subject\d+", "(subject)?", ""):
        with pytest.raises(InvalidInputError, match="matches none of 16 files, such as 'a/person0"):
            load_dataset(f"folder:{tmp_path}", name="x", group=group)


def test_videos_that_the_expression_does_not_match_are_named(tmp_path: Path) -> None:
    touch(tmp_path, *[f"{c}/s{s}_{n}.mp4" for c in "ab" for s in range(4) for n in range(2)])
    touch(tmp_path, "a/odd.mp4")
    dataset = load_dataset(f"folder:{tmp_path}", name="x", group=r"^s\d+")
    (note,) = dataset.notes
    assert "does not match" in note
    assert "1 ('a/odd')" in note
    groups = {video.video_id: video.group for video in dataset.videos}
    assert groups["a/odd"] == "a/odd"
    assert groups["a/s1_0"] == groups["b/s1_1"] == "s1"
    assert not dataset.official_split
    assert load_dataset(f"folder:{tmp_path}", name="x", group=r"^s\d+|odd").notes == ()
