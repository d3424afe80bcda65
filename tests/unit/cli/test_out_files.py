"""One rule for every file that a command is told to write, checked before the work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.out_files import check_out_file, check_out_folder, out_file
from coinml_cli.app import app

COMMANDS = {
    "predict": (["predict", "a.mp4", "--out"], ".csv"),
    "audit": (["audit", "--propose"], ".csv"),
    "report": (["report", "--out"], ".html"),
    "export": (["embeddings", "export", "--out"], ".npz"),
    "status": (["status", "--figure"], ".png"),
}
NOWHERE = Path("/proc")
"""A folder in which nobody can make a file, an administrator neither."""


@pytest.fixture(params=COMMANDS)
def named(request: pytest.FixtureRequest) -> tuple[list[str], str]:
    return COMMANDS[request.param]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def refusal(*arguments: str | Path) -> str:
    run: Result = CliRunner().invoke(app, list(map(str, arguments)))
    assert isinstance(run.exception, InvalidInputError | LocalError), run.output
    return str(run.exception)


def test_each_command_refuses_the_same_files_in_the_same_words(
    home: Path, tmp_path: Path, named: tuple[list[str], str]
) -> None:
    command, ending = named
    away = tmp_path / "nowhere" / f"x{ending}"
    assert refusal(*command, away) == f"{away}: there is no folder {away.parent}"
    folder = tmp_path / f"folder{ending}"
    folder.mkdir()
    said = refusal(*command, folder)
    assert said == f"{folder}: is a folder; name a file in it, as {folder}/out{ending}"
    other = tmp_path / "x.txt"
    assert refusal(*command, other).startswith(f"{other}: a file that ends in {ending}")
    there = tmp_path / f"there{ending}"
    there.write_text("mine")
    assert refusal(*command, there) == f"{there}: exists; --force replaces it"
    assert there.read_text() == "mine"
    device = tmp_path / f"device{ending}"
    device.symlink_to("/dev/null")
    said = refusal(*command, device, "--force")
    assert said == f"{device}: is no file that could be replaced"
    device.unlink()
    device.symlink_to("nowhere")
    for force in ([], ["--force"]):
        assert refusal(*command, device, *force) == f"{device}: is no file that could be replaced"
    long = tmp_path / f"{'x' * 250}{ending}"
    assert refusal(*command, long) == f"{long}: cannot be written: File name too long"
    # Nothing was read or drawn by then.
    assert not (home / "data" / "ledger.db").exists()
    assert not (home / "data" / "miniature").exists()
    assert sorted(one.name for one in tmp_path.iterdir() if one != home) == sorted(
        [folder.name, there.name, device.name]
    )


@pytest.mark.skipif(not NOWHERE.is_dir(), reason="there is no such folder")
@pytest.mark.usefixtures("home")
def test_a_folder_that_cannot_be_written_is_the_fault_of_this_machine(
    named: tuple[list[str], str],
) -> None:
    command, ending = named
    path = NOWHERE / f"x{ending}"
    run = CliRunner().invoke(app, [*command, str(path)])
    assert isinstance(run.exception, LocalError)
    assert str(run.exception).startswith(f"{path}: cannot be written: ")


@pytest.mark.usefixtures("home")
def test_the_folder_of_service_files_follows_the_rule(tmp_path: Path) -> None:
    printed = ("up", "--print", "systemd", "--out")
    away = tmp_path / "nowhere" / "units"
    assert refusal(*printed, away) == f"{away}: there is no folder {away.parent}"
    file = tmp_path / "file"
    file.touch()
    assert refusal(*printed, file) == f"{file}: is a file; name a folder"
    units = tmp_path / "units"
    assert CliRunner().invoke(app, [*printed, str(units)]).exit_code == 0
    before = {one.name: one.read_text() for one in units.iterdir()}
    assert before
    first = units / "coinml.target"
    assert first.name in before
    first.write_text("mine")
    assert ": exists; --force replaces it" in refusal(*printed, units)
    assert first.read_text() == "mine"
    assert CliRunner().invoke(app, [*printed, str(units), "--force"]).exit_code == 0
    assert {one.name: one.read_text() for one in units.iterdir()} == before
    assert refusal("up", "--force") == "--force goes with --print"


@pytest.mark.usefixtures("home")
def test_a_new_folder_must_be_new(tmp_path: Path) -> None:
    export = ("registry", "export")
    assert refusal(*export, tmp_path).startswith(f"{tmp_path}: exists already; name a folder")
    away = tmp_path / "nowhere" / "model"
    assert refusal(*export, away) == f"{away}: there is no folder {away.parent}"
    check_out_folder(tmp_path)
    check_out_folder(tmp_path / "model", new=True)
    assert not (tmp_path / "model").exists()


def test_a_file_that_fails_half_way_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("before")

    def write_half() -> None:
        with out_file(path, endings=(".csv",), replace=True) as partial:
            partial.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(LocalError, match=r"x\.csv: cannot be written: No space left"):
        write_half()
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("x.csv", "before")]
    check_out_file(tmp_path / "NEW.CSV", endings=(".csv",))
