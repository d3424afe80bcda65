"""A home that was renamed or copied is found, refused, and goes on after one command."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError
from coinml.ledger import DOWNLOADED, Attempt, FileFacts, Ledger
from coinml.runtime.process_identity import process_start
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import MlflowStore, home_store
from coinml_cli.app import app
from coinml_ops.deployments.chosen import Chosen, read_chosen, write_chosen
from coinml_ops.doctor.home import check_home
from coinml_ops.stack import record
from coinml_ops.stack.record import Process, Stack
from coinml_ops.upkeep.move_home import move_home
from coinml_ops.upkeep.moved_home import check_place, moves_of
from coinml_ops.upkeep.relocate import Move
from tests.helpers.filled_prefect import basepath_of_block, fill_prefect
from tests.helpers.made_up_versions import NAME, candidate

# Ends itself while it changes one column after another, as `kill -9` would, once in each.
KILLED = """
import os, signal, sys
from pathlib import Path
from coinml.runtime.settings import Settings
from coinml_ops.upkeep import move_home, relocate

whole, left = relocate._Column.relocate, 0
def die(self, *arguments, **named):
    global left
    result = whole(self, *arguments, **named)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
# Loads what the children need.
move_home.move_home(Settings(home=Path(sys.argv[1])), dry_run=True)
relocate._Column.relocate = die
for number in range(1, 40):
    left = number
    child = os.fork()
    if child == 0:
        move_home.move_home(Settings(home=Path(sys.argv[1])))
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(number)
        break
"""


@pytest.fixture(scope="session")
def prefect_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with tables as Prefect's models have them."""
    import sqlalchemy
    from prefect.server.database.orm_models import Base
    from sqlalchemy.schema import CreateTable

    path = tmp_path_factory.mktemp("prefect") / "prefect.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for name in ("configuration", "deployment", "flow_run", "block_document"):
            connection.execute(CreateTable(Base.metadata.tables[name]))
    engine.dispose()
    return path


@pytest.fixture(scope="module")
def kept_home(
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[Path], MlflowStore],
    prefect_tables: Path,
) -> Path:
    """A home with all that has paths, moved away from the folder that they name."""
    settings = Settings(home=tmp_path_factory.mktemp("homes") / "before it")
    settings.home.mkdir()
    candidate(new_store(settings.home), right=0.6)
    candidate(home_store(settings), right=0.7)
    folder = settings.videos_dir("mini")
    folder.mkdir(parents=True)
    (folder / "v0.mp4").write_bytes(b"video")
    with Ledger.of(settings) as ledger:
        ledger.register(
            Dataset(
                name="mini",
                videos=(Video(video_id="v0", label="A", subset="training", split="train"),),
                origin=str(settings.data_dir / "COIN.json"),
            )
        )
        ledger.record_success(
            "mini",
            "v0",
            file=FileFacts(path=str(folder / "v0.mp4"), size_bytes=5, sha256="0" * 64),
            attempt=Attempt(run_id="r", started_at=datetime(2026, 1, 1, tzinfo=UTC)),
        )
    write_chosen(
        settings.data_dir,
        Chosen(
            dataset=str(settings.data_dir / "COIN.json"),
            source=(f"{settings.home}/copies/{{id}}.mp4", "/elsewhere/{id}.mp4"),
            encoder="org/hub-id",
        ),
    )
    (settings.data_dir / "latest").symlink_to(folder)
    (settings.data_dir / "own").symlink_to("videos")
    record.write(Stack(id="a" * 32, home=str(settings.home), dataset=str(settings.data_dir / "x")))
    (settings.data_dir / "prefect").mkdir()
    fill_prefect(settings, prefect_tables)
    return settings.home.rename(settings.home.with_name("kept"))


@pytest.fixture
def home(kept_home: Path) -> Iterator[Settings]:
    """The home in the folder that its paths name."""
    folder = kept_home.with_name("before it")
    shutil.copytree(kept_home, folder, symlinks=True)
    yield Settings(home=folder)
    for path in kept_home.parent.iterdir():
        if path.is_symlink():
            path.unlink()
        elif path != kept_home:
            shutil.rmtree(path)


def moved(home: Settings, name: str = "now") -> Settings:
    """The home in another folder."""
    home.home.rename(home.home.with_name(name))
    return Settings(home=home.home.with_name(name))


def paths_in(settings: Settings) -> dict[str, list[str]]:
    """All text of a home's databases, choices and links that can have a path."""
    found = {}
    for name in ("mlflow.db", "data/ledger.db", "data/prefect/prefect.db"):
        with closing(sqlite3.connect(settings.home / name)) as database:
            found[name] = [line for line in database.iterdump() if "block_document" not in line]
    found["choices"] = [str(read_chosen(settings.data_dir))]
    found["links"] = [
        str(path.readlink()) for path in settings.data_dir.iterdir() if path.is_symlink()
    ]
    return found


def test_a_home_where_it_was_is_in_order(home: Settings) -> None:
    assert moves_of(home) == ()
    assert check_home(home).state == "ok"
    assert move_home(home).changed == {}


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_moved_home_is_found_and_goes_on(home: Settings, how: str) -> None:
    before = paths_in(home)
    if how == "renamed":
        there = moved(home)
    else:
        there = Settings(home=home.home.with_name("copy"))
        shutil.copytree(home.home, there.home, symlinks=True)
    assert moves_of(there) == (Move(home.home, there.home),)
    finding = check_home(there)
    assert finding.state == "failed"
    assert str(home.home) in finding.text
    assert "coinml move-home" in finding.remedy
    with pytest.raises(InvalidInputError, match=r"coinml move-home"):
        check_place(there)
    assert moves_of(there), "looking changes nothing"

    counted = move_home(there, dry_run=True)
    assert paths_in(there) == before
    done = move_home(there)
    assert done == counted
    assert done.moved_from == (str(home.home),)
    assert done.changed == {
        "deployments.yaml": 2,
        "links": 1,
        "prefect deployment.parameters": 1,
        "prefect flow_run.parameters": 1,
        "prefect block_document.data": 1,
        "ledger videos.path": 1,
        "ledger datasets.origin": 1,
        "mlflow experiments.artifact_location": 1,
        "mlflow runs.artifact_uri": 2,
        "mlflow model_versions.source": 2,
        "mlflow model_versions.storage_location": 2,
    }
    assert moves_of(there) == ()
    old, new = str(home.home), str(there.home)
    escaped = home.home.as_uri(), there.home.as_uri()
    assert paths_in(there) == {
        part: [
            line.replace(f"{old}-not", "kept")
            .replace(old, new)
            .replace(*escaped)
            .replace("kept", f"{old}-not")
            for line in lines
        ]
        for part, lines in before.items()
    }
    assert basepath_of_block(there) == f"{new}/results"
    assert read_chosen(there.data_dir).source == (f"{new}/copies/{{id}}.mp4", "/elsewhere/{id}.mp4")
    stack = record.read(there.home)
    assert stack is not None
    assert (stack.home, stack.moved_from) == (new, "")
    assert stack.dataset == str(there.data_dir / "x")
    # The registered version's files are found, the next one goes beside them.
    client = home_store(there).client()
    run_id = client.get_model_version(NAME, "1").run_id
    assert client.get_run(run_id).info.artifact_uri.startswith(there.home.as_uri())
    assert client.list_artifacts(run_id, "tables")
    assert candidate(home_store(there), right=0.8) == 3
    assert (how == "copied") == home.home.exists()
    with Ledger.of(there) as ledger:
        (row,) = ledger.rows("mini", state=DOWNLOADED)
        assert Path(str(row.path)).read_bytes() == b"video"


def test_a_move_that_is_killed_at_any_point_goes_on(home: Settings) -> None:
    before = paths_in(home)
    there = moved(home)
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(there.home)],
        capture_output=True,
        text=True,
        check=True,
    )
    # Each column of the three databases was the one at which it was killed.
    assert int(run.stdout) > 10, run.stderr
    assert moves_of(there) == ()
    assert move_home(there).changed == {}
    old, new = str(home.home), str(there.home)
    after = paths_in(there)
    assert after.keys() == before.keys()
    assert not [line for lines in after.values() for line in lines if f"{old}/" in line]
    assert sum(new in line for lines in after.values() for line in lines) == sum(
        old in line or home.home.as_uri() in line for lines in before.values() for line in lines
    )


def test_it_is_refused_while_the_servers_run(home: Settings) -> None:
    record.update(home.home, services={"mlflow": Process.of(os.getpid())})
    there = moved(home)
    with pytest.raises(InvalidInputError, match="first `coinml down`"):
        move_home(there)
    # `down` writes the record before the paths are changed.
    record.update(there.home, services={})
    assert not home.home.exists()
    assert moves_of(there) == (Move(home.home, there.home),)
    assert move_home(there).moved_from == (str(home.home),)


def test_the_servers_of_the_original_are_not_those_of_a_copy(home: Settings) -> None:
    """`coinml down` in the copy would end them, and its commands would use them."""
    record.update(home.home, services={"mlflow": Process.of(os.getpid())})
    copy = Settings(home=home.home.with_name("copy"))
    shutil.copytree(home.home, copy.home, symlinks=True)
    original, stack = record.read(home.home), record.read(copy.home)
    assert original is not None
    assert stack is not None
    assert original.services["mlflow"].started == process_start(os.getpid())
    assert stack.services == {}
    assert stack.id != original.id
    assert move_home(copy).changed
    stack = record.read(copy.home)
    assert stack is not None
    assert stack.id != original.id


def test_a_home_that_two_paths_lead_to_has_not_moved(home: Settings) -> None:
    there = moved(home)
    home.home.symlink_to(there.home)
    assert moves_of(there) == ()


def test_a_link_to_artifacts_on_another_disk_is_followed(home: Settings, tmp_path: Path) -> None:
    disk, mounted = tmp_path / "disk" / "art", tmp_path / "mounted" / "art"
    shutil.copytree(home.artifact_root, disk)
    shutil.rmtree(home.artifact_root)
    home.artifact_root.symlink_to(disk)
    with closing(sqlite3.connect(home.home / "mlflow.db")) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = ? WHERE name = ?",
            (f"{disk.as_uri()}/{NAME}", NAME),
        )
    assert moves_of(home) == ()
    mounted.parent.mkdir()
    disk.rename(mounted)
    home.artifact_root.unlink()
    home.artifact_root.symlink_to(mounted)
    assert moves_of(home) == (Move(disk, home.artifact_root),)
    assert move_home(home).changed == {"mlflow experiments.artifact_location": 1}
    assert moves_of(home) == ()


def test_a_place_can_be_named(home: Settings) -> None:
    there = moved(home)
    for name in ("mlflow.db", "data/ledger.db", "data/stack/stack.json"):
        (there.home / name).unlink()
    assert moves_of(there) == ()
    changed = move_home(there, moved_from=home.home).changed
    assert changed["prefect deployment.parameters"] == 1
    with pytest.raises(InvalidInputError, match="--from"):
        move_home(there, moved_from=there.home)


def test_a_place_where_the_home_never_was_is_refused(home: Settings) -> None:
    there = moved(home)
    before = paths_in(there), moves_of(there), record.read(there.home)

    with pytest.raises(InvalidInputError, match="--from /never/there: nothing"):
        move_home(there, moved_from=Path("/never/there"))

    assert (paths_in(there), moves_of(there), record.read(there.home)) == before


@pytest.mark.parametrize(
    "command", [["train"], ["up"], ["ui"], ["gc", "--delete"], ["registry"], ["predict", "x.mp4"]]
)
def test_commands_that_would_write_or_look_there_are_refused(
    home: Settings, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    there = moved(home)
    monkeypatch.setenv("COINML_HOME", str(there.home))
    found = CliRunner().invoke(app, command).exception
    assert isinstance(found, InvalidInputError)
    assert "was at" in str(found)
    assert "coinml move-home" in str(found)
    assert not home.home.exists()


def test_the_command_counts_first(home: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    there = moved(home)
    monkeypatch.setenv("COINML_HOME", str(there.home))
    first = json.loads(CliRunner().invoke(app, ["move-home", "--dry-run", "--json"]).stdout)
    assert first["dry_run"] is True
    assert first["changed"]["mlflow runs.artifact_uri"] == 2
    assert moves_of(there)
    said = CliRunner().invoke(app, ["move-home"]).stdout
    assert f"{sum(first['changed'].values())} paths were changed" in said.replace("\n", " ")
    assert not moves_of(there)
    assert "nothing to change" in CliRunner().invoke(app, ["move-home"]).stdout
