"""Which files of a folder are videos."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coinml.data.annotations import load_dataset
from coinml.data.video_files import GENERATED, find_videos
from coinml.errors import InvalidInputError


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / "clips"
    for label in ("boil", "cut"):
        (made / label / "deep").mkdir(parents=True)
        for number in range(3):
            (made / label / f"v{number}.mp4").touch()
        (made / label / "deep" / "w.MKV").touch()
        (made / label / "notes.txt").touch()
    return made


def names(folder: Path, **options: list[str]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_videos(folder, **options).files]


PLAIN = [
    f"{label}/{name}"
    for label in ("boil", "cut")
    for name in ("deep/w.MKV", *(f"v{n}.mp4" for n in range(3)))
]


@pytest.mark.parametrize(
    "name",
    [
        ".ipynb_checkpoints",
        "@eaDir",
        ".thumbnails",
        "__MACOSX",
        "#recycle",
        "lost+found",
        "System Volume Information",
        "$RECYCLE.BIN",
        "@Recycle",
        ".Trash-1000",
    ],
)
def test_hidden_and_generated_folders_are_skipped_at_any_depth(top: Path, name: str) -> None:
    for place in (top, top / "boil", top / "cut" / "deep"):
        (place / name).mkdir()
        (place / name / "v0.mp4").touch()
    found = find_videos(top)
    assert names(top) == PLAIN
    assert found.hidden == (name,) * 3
    dataset = load_dataset(f"folder:{top}")
    assert {video.label for video in dataset.videos} == {"boil", "cut"}
    assert len(dataset.videos) == len(PLAIN)
    notes = " ".join(dataset.notes)
    assert repr(name) in notes
    assert "skipped" in notes


def test_hidden_and_generated_files_are_skipped_and_counted(top: Path) -> None:
    for path in list(top.rglob("*.mp4")):
        path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
    (top / "boil" / "Thumbs.db").touch()
    assert names(top) == PLAIN
    assert find_videos(top).notes() == (
        "hidden or generated files and folders that are skipped: 7 ('._v0.mp4', '._v1.mp4', "
        "'._v2.mp4', 'Thumbs.db')",
    )
    assert all(name == name.casefold() for name in GENERATED)


def test_a_link_to_a_missing_file_is_a_video_of_the_dataset(top: Path) -> None:
    for number in range(2):
        path = top / "boil" / f"v{number}.mp4"
        path.unlink()
        path.symlink_to(f"/nowhere/annex/{number}.mp4")
    (top / "boil" / "more").symlink_to("/nowhere/else")
    (top / "third").symlink_to("/nowhere/third")
    dataset = load_dataset(f"folder:{top}")
    assert {video.video_id for video in dataset.videos} >= {"boil/v0", "boil/v1", "boil/v2"}
    assert dataset.notes == (
        "links that lead nowhere and are skipped: 1 ('third')",
        "links that lead nowhere and are skipped: 1 ('more')",
        "links to missing files, whose videos count as missing: 2 ('v0.mp4', 'v1.mp4')",
    )


def test_linked_files_and_folders_are_read(top: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "below"
    elsewhere.mkdir(parents=True)
    for number in range(3):
        (elsewhere / f"x{number}.mp4").touch()
    (top / "boil" / "more").symlink_to(elsewhere.parent)
    (top / "cut" / "one.mp4").symlink_to(elsewhere / "x0.mp4")
    (top / "third").symlink_to(elsewhere)
    added = [f"boil/more/below/x{n}.mp4" for n in range(3)] + ["cut/one.mp4"]
    # The class that is a link has the same files: a folder belongs to one class.
    assert names(top, inside=["boil", "cut"]) == sorted(PLAIN + added)
    (top / "third").unlink()
    dataset = load_dataset(f"folder:{top}")
    assert {video.video_id for video in dataset.videos} >= {"boil/more/below/x0", "cut/one"}
    assert dataset.notes == ()


def test_a_class_folder_may_be_a_link(top: Path, tmp_path: Path) -> None:
    (top / "cut").rename(tmp_path / "real_cut")
    (top / "cut").symlink_to(tmp_path / "real_cut")
    dataset = load_dataset(f"folder:{top}")
    assert sorted(video.video_id for video in dataset.videos if video.label == "cut") == [
        "cut/deep/w",
        "cut/v0",
        "cut/v1",
        "cut/v2",
    ]


def test_links_in_a_circle_are_skipped_and_named_once(top: Path) -> None:
    (top / "boil" / "self").symlink_to(top / "boil")
    (top / "boil" / "up").symlink_to(top)
    (top / "boil" / "other").symlink_to(top / "cut")
    (top / "cut" / "again").symlink_to("again")
    (top / "cut" / "again.mp4").symlink_to("again.mp4")
    found = find_videos(top, inside=["boil", "cut"])
    assert sorted(found.read_before) == ["boil/other", "boil/self", "boil/up"]
    assert found.lost_links == ("again",)
    assert names(top, inside=["boil", "cut"]) == sorted([*PLAIN, "cut/again.mp4"])


def test_what_is_neither_file_nor_folder_is_no_video(top: Path) -> None:
    os.mkfifo(top / "boil" / "pipe.mp4")
    assert names(top) == PLAIN


def test_a_class_with_hidden_files_alone_is_refused_in_words(top: Path) -> None:
    (top / "third").mkdir()
    (top / "third" / "._v.mp4").touch()
    with pytest.raises(InvalidInputError, match=r"no videos in third.*hidden"):
        load_dataset(f"folder:{top}")
