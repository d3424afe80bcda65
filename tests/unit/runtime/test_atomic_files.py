from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coinml.runtime.atomic_files import PARTIAL_GLOB, write_whole, written_whole


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("content", "written"), [("é\n", "é\n".encode()), (b"\0\1", b"\0\1"), (memoryview(b"x"), b"x")]
)
def test_text_and_bytes_are_written(tmp_path: Path, content: object, written: bytes) -> None:
    write_whole(tmp_path / "file.json", content)
    assert (tmp_path / "file.json").read_bytes() == written
    assert names(tmp_path) == {"file.json"}


def test_nothing_is_seen_under_the_name_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "video.mp4"
    target.write_text("old")
    with written_whole(target) as partial:
        partial.write_text("new")
        assert target.read_text() == "old"
        assert partial.suffix == ".mp4"
        assert list(tmp_path.glob(PARTIAL_GLOB)) == [partial]
    assert target.read_text() == "new"
    assert names(tmp_path) == {"video.mp4"}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _interrupted(target)
    assert target.read_text() == "old"
    assert names(tmp_path) == {"file"}


def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "secret"
    target.write_text("old")
    target.chmod(0o644)
    with written_whole(target, private=True) as partial:
        assert stat.S_IMODE(partial.stat().st_mode) == 0o600
        partial.write_text("new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_durable_file_and_its_folder_are_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []

    def note(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", note)
    write_whole(tmp_path / "quick", "", durable=False)
    assert flushed == []
    write_whole(tmp_path / "kept", "")
    assert [".kept." in name for name in flushed] == [True, False]
    assert flushed[1] == tmp_path.name


def _interrupted(target: Path) -> None:
    with written_whole(target) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
