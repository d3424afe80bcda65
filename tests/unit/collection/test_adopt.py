from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from coinml.collection.adopt import adopt_folder, adopt_in_place
from coinml.data.records import Dataset, Video
from coinml.data.video_files import find_videos
from coinml.errors import InvalidInputError, LocalError
from coinml.ledger import DOWNLOADED, PENDING, Ledger

IDS = ["-aaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    made = tmp_path / "given"
    (made / "below").mkdir(parents=True)
    make_video(made / f"{IDS[0]}.mp4", seconds=0.4)
    make_video(made / "below" / f"{IDS[1]}.mp4", seconds=0.6, seed=1)
    (made / f"{IDS[2]}.mp4").write_bytes(b"junk")
    make_video(made / "holiday.mp4", seconds=0.4)
    (made / "notes.txt").write_text("not a video")
    return made


def registered(ledger: Ledger, paths: dict[str, Path] | None = None) -> Dataset:
    dataset = Dataset(
        name="mini",
        videos=tuple(
            Video(
                video_id=video_id,
                label="saw",
                subset="training",
                split="train",
                path=str(paths[video_id]) if paths else None,
            )
            for video_id in paths or IDS
        ),
    )
    ledger.register(dataset)
    return dataset


def states(ledger: Ledger) -> list[str]:
    return [row.state for row in ledger.rows("mini")]


@pytest.mark.parametrize("link", [False, True])
def test_adopting_a_folder_verifies_and_copies_its_videos(
    ledger: Ledger, folder: Path, tmp_path: Path, link: bool
) -> None:
    registered(ledger)
    videos, seen = tmp_path / "videos", []
    report = adopt_folder(
        ledger,
        "mini",
        folder,
        videos_dir=videos,
        link=link,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert set(report.adopted) == set(IDS[:2])
    assert report.unknown == ("holiday.mp4",)
    assert set(report.failed) == {IDS[2]}
    assert "unusable" in report.failed[IDS[2]]
    assert seen[-1] == (3, 3)
    assert {path.name for path in videos.glob("*.mp4")} == {f"{one}.mp4" for one in IDS[:2]}
    assert states(ledger) == [DOWNLOADED, DOWNLOADED, PENDING]
    row = ledger.row("mini", IDS[1])
    assert (row.origin, row.attempts, row.path) == ("import", 0, str(videos / f"{IDS[1]}.mp4"))
    assert row.media_duration_s == pytest.approx(0.6, abs=0.1)
    assert (videos / f"{IDS[0]}.mp4").samefile(folder / f"{IDS[0]}.mp4") == link
    again = adopt_folder(ledger, "mini", folder, videos_dir=videos)
    assert set(again.already) == set(IDS[:2])
    assert again.adopted == ()


def test_a_folder_without_videos_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    registered(ledger)
    with pytest.raises(InvalidInputError, match="no such folder"):
        adopt_folder(ledger, "mini", tmp_path / "nowhere", videos_dir=tmp_path / "videos")
    with pytest.raises(InvalidInputError, match="no video file"):
        adopt_folder(ledger, "mini", tmp_path, videos_dir=tmp_path / "videos")


def test_adopting_in_place_leaves_files_where_they_are(ledger: Ledger, folder: Path) -> None:
    paths = {
        "saw/-aaaaaaaaaa": folder / f"{IDS[0]}.mp4",
        "saw/b": folder / "below" / f"{IDS[1]}.mp4",
        "saw/c": folder / f"{IDS[2]}.mp4",
        "saw/gone": folder / "gone.mp4",
    }
    dataset = registered(ledger, paths)
    report = adopt_in_place(ledger, dataset)
    assert set(report.adopted) == {"saw/-aaaaaaaaaa", "saw/b"}
    assert set(report.failed) == {"saw/c", "saw/gone"}
    assert states(ledger) == [DOWNLOADED, DOWNLOADED, "corrupt", "corrupt"]
    assert ledger.row("mini", "saw/b").path == str(paths["saw/b"])
    assert ledger.due("mini") == []
    assert all(path.exists() for name, path in paths.items() if name != "saw/gone")


def test_only_changed_files_are_verified_again(
    ledger: Ledger, folder: Path, make_video: Callable[..., Path]
) -> None:
    paths = {"a": folder / f"{IDS[0]}.mp4", "b": folder / "below" / f"{IDS[1]}.mp4"}
    dataset = registered(ledger, paths)
    adopt_in_place(ledger, dataset)
    before = ledger.row("mini", "a")
    make_video(paths["a"], seconds=0.8, seed=5)
    report = adopt_in_place(ledger, dataset)
    assert (report.adopted, report.already) == (("a",), ("b",))
    assert ledger.row("mini", "a").sha256 != before.sha256
    paths["a"].unlink()
    assert set(adopt_in_place(ledger, dataset).failed) == {"a"}
    assert states(ledger) == ["corrupt", DOWNLOADED]
    assert ledger.row("mini", "a").path is None


def test_a_dataset_without_files_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidInputError, match="-aaaaaaaaaa"):
        adopt_in_place(ledger, registered(ledger))


def test_adopting_skips_hidden_files_and_reads_linked_folders(
    ledger: Ledger, folder: Path, tmp_path: Path
) -> None:
    registered(ledger)
    (folder / f"._{IDS[2]}.mp4").write_bytes(b"Mac OS X")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / f"{IDS[2]}.mp4").write_bytes(b"a preview")
    (folder / f"{IDS[2]}.mp4").unlink()
    (folder / f"{IDS[2]}.mp4").symlink_to("/nowhere/annex")
    (folder / "below").rename(tmp_path / "elsewhere")
    (folder / "below").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(folder)
    report = adopt_folder(ledger, "mini", folder, videos_dir=tmp_path / "videos")
    assert set(report.adopted) == set(IDS[:2])
    assert set(report.failed) == {IDS[2]}
    assert "missing" in report.failed[IDS[2]]
    assert report.notes == (
        f"hidden or generated files and folders that are skipped: 2 ('._{IDS[2]}.mp4', '@eaDir')",
        "linked folders that are skipped, since they are read anyway: 1 ('below/back')",
        f"links to missing files, whose videos count as missing: 1 ('{IDS[2]}.mp4')",
    )


@pytest.fixture
def ordinary_user() -> Iterator[Path]:
    """A folder of a user who is not root, since root reads every file."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
    finally:
        if root:
            os.seteuid(0)


def test_a_file_that_cannot_be_read_is_named_and_stops_no_other(ordinary_user: Path) -> None:
    paths = {name: ordinary_user / f"{name}.mp4" for name in ("saw/a", "saw/b")}
    (ordinary_user / "saw").mkdir()
    for path in paths.values():
        path.touch()
    paths["saw/a"].chmod(0)

    # Not the real decode: its processes cannot start as a user who may not read Python's folder.
    def verify(path: Path) -> SimpleNamespace:
        return SimpleNamespace(verdict="ok", reason=None, duration_s=1.0)

    with Ledger(f"sqlite:///{ordinary_user / 'ledger.db'}") as ledger:
        report = adopt_in_place(ledger, registered(ledger, paths), verify=verify)
        assert report.adopted == ("saw/b",)
        assert report.failed == {"saw/a": f"{paths['saw/a']}: cannot be read: Permission denied"}
        assert states(ledger) == ["corrupt", DOWNLOADED]
        paths["saw/a"].chmod(0o600)
        assert adopt_in_place(ledger, registered(ledger, paths), verify=verify).adopted == (
            "saw/a",
        )
    (ordinary_user / "saw").chmod(0)
    with pytest.raises(LocalError, match=r"saw: cannot be read: Permission denied"):
        find_videos(ordinary_user)
    (ordinary_user / "saw").chmod(0o700)
