"""Splits: published subsets are kept, folders are stratified, groups are not divided."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinml.data.annotations import load_dataset
from coinml.data.records import Video
from coinml.data.splits import folder_splits, limit_videos, official_split
from coinml.errors import InvalidInputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_val_depends_on_the_video_id_alone() -> None:
    sides = Counter(official_split(f"id{n}", "training") for n in range(4000))
    assert sides["test"] == 0
    assert 0.13 < sides["val"] / 4000 < 0.17
    assert {official_split(f"id{n}", "testing") for n in range(50)} == {"test"}


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.text("abcdef0123", min_size=1, max_size=6), st.sampled_from("XYZ"), min_size=9
    ),
    st.integers(0, 5),
)
def test_each_class_is_split_on_its_own(labels: dict[str, str], seed: int) -> None:
    sizes = Counter(labels.values())
    if min(sizes.values()) < 3:
        with pytest.raises(InvalidInputError):
            folder_splits(labels, {i: i for i in labels}, seed=seed)
        return
    splits = folder_splits(labels, {i: i for i in labels}, seed=seed)
    assert splits.keys() == labels.keys()
    for label, size in sizes.items():
        cut = Counter(splits[i] for i in labels if labels[i] == label)
        assert min(cut[s] for s in ("train", "val", "test")) >= 1
        assert abs(cut["test"] - 0.15 * size) <= 1
        assert abs(cut["val"] - 0.15 * size) <= 1


def test_a_group_is_never_divided() -> None:
    labels = {f"{c}/s{s}_{n}": c for c in ("fall", "adl") for s in range(1, 6) for n in range(4)}
    groups = {i: i.split("/")[1].split("_")[0] for i in labels}
    splits = folder_splits(labels, groups)
    for group in set(groups.values()):
        assert len({splits[i] for i in labels if groups[i] == group}) == 1
    assert set(splits.values()) == {"train", "val", "test"}


def test_folder_ids_groups_and_skipped_folders(tmp_path: Path) -> None:
    touch(tmp_path, "_notes/x.mp4", "adl/readme.txt")
    touch(
        tmp_path,
        *[f"{c}/subject{s}_{n}.mp4" for c in ("fall", "adl") for s in range(4) for n in range(3)],
    )
    dataset = load_dataset(f"folder:{tmp_path}", group=r"^(subject\d+)", name="falls")
    assert dataset.classes == ("adl", "fall")
    assert len(dataset.videos) == 24
    sides: dict[str, set[str]] = {}
    for video in dataset.videos:
        assert video.video_id.startswith(f"{video.label}/subject")
        assert (video.subset == "testing") == (video.split == "test")
        sides.setdefault(video.video_id.split("/")[1][:8], set()).add(video.split)
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        (["a/1.mp4", "a/1.webm"], {}, "have the same id 'a/1'"),
        (["a/1.mp4", "a/2.mp4"], {}, "at least 3"),
        (["a/1.mp4", "b/x.txt"], {}, "no videos in b"),
        (["a/1.mp4"], {"classes": ["z"]}, "no class z; the class folders are a"),
        (["a/1.mp4"], {"group": "("}, "not a regular expression"),
        ([], {}, "no class folders"),
    ],
)
def test_a_bad_folder_is_reported_with_the_reason(
    tmp_path: Path, names: list[str], options: dict[str, object], says: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(InvalidInputError) as caught:
        load_dataset(f"folder:{tmp_path}", **options)  # type: ignore[arg-type]
    assert says in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "group" in says or "expression" in says


def test_limit_is_stratified_and_a_larger_limit_only_adds() -> None:
    videos = [
        Video(
            video_id=f"{label}{n}",
            label=label,
            subset="testing" if n % 4 == 0 else "training",
            split=("test", "val", "train", "train")[n % 4],  # type: ignore[arg-type]
        )
        for label in "ABC"
        for n in range(20)
    ]
    previous: set[str] = set()
    for limit in (1, 3, 9, 30, 60, 100):
        chosen = {v.video_id for v in limit_videos(videos, limit)}
        assert len(chosen) == min(limit, 60)
        assert previous <= chosen
        previous = chosen
    nine = Counter((v.label, v.split) for v in limit_videos(videos, 9))
    assert len(nine) == 9
    thirty = Counter(v.split for v in limit_videos(videos, 30))
    assert 13 <= thirty["train"] <= 17
    with pytest.raises(InvalidInputError):
        limit_videos(videos, 0)


def test_every_class_that_is_too_small_is_named_with_what_it_has() -> None:
    labels = {
        f"{label}{n}": label
        for label, many in (("a", 1), ("b", 2), ("c", 4), ("d", 3))
        for n in range(many)
    }
    groups = {one: "d" if one.startswith("d") else one for one in labels}
    with pytest.raises(
        InvalidInputError, match="a has 1 video, b has 2 videos, d has 3 videos in 1 group: add"
    ) as caught:
        folder_splits(labels, groups)
    assert "c has" not in str(caught.value)
    assert "--classes" in str(caught.value)
    assert "'_'" in str(caught.value)
