from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from coinml.ledger import Ledger
from coinml.runtime.atomic_files import (
    PARTIAL_GLOB,
    folder_written_whole,
    name_first,
    write_whole,
    written_whole,
)
from coinml.runtime.home_key import keyed_digest


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


def test_a_folder_has_its_name_once_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "step-5"
    with folder_written_whole(target) as partial:
        (partial / "weights").write_text("new")
        assert not target.exists()
        assert partial in set(tmp_path.glob(PARTIAL_GLOB))
    assert (target / "weights").read_text() == "new"
    with pytest.raises(RuntimeError), folder_written_whole(tmp_path / "step-6"):
        raise RuntimeError
    # What is there is not replaced.
    with pytest.raises(OSError, match="not empty"), folder_written_whole(target) as partial:
        (partial / "weights").write_text("other")
    assert names(tmp_path) == {"step-5"}
    assert (target / "weights").read_text() == "new"


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


@pytest.fixture(params=[None, errno.EPERM, errno.EOPNOTSUPP])
def _links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without hard links; a file system without them cannot be mounted in a test."""

    def link(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(os, "link", link)


@pytest.mark.usefixtures("_links")
def test_the_first_file_of_a_name_stays(tmp_path: Path) -> None:
    first, second, path = tmp_path / "1", tmp_path / "2", tmp_path / "key"
    first.write_text("first")
    second.write_text("second")
    name_first(first, path)
    name_first(second, path)
    assert path.read_text() == "first"


@pytest.mark.usefixtures("_links")
def test_a_home_begins_on_every_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        assert ledger.datasets() == []
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as again:
        assert again.datasets() == []
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    assert keyed_digest(b"a") == keyed_digest(b"a") != keyed_digest(b"b")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "begun").touch()
    with pytest.raises(FileNotFoundError):
        name_first(tmp_path / "begun", tmp_path / "missing" / "key")
