"""A home is copied while it is used, and brought back in the same folder or another one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from coinml.data.records import Dataset, Video
from coinml.embedding_sets import EmbeddingSet
from coinml.errors import InvalidInputError, LocalError
from coinml.ledger import DOWNLOADED, Attempt, FileFacts, Ledger
from coinml.runtime.settings import Settings
from coinml_cli.app import app
from coinml_ops.deployments.chosen import Chosen, read_chosen, write_chosen
from coinml_ops.stack import record
from coinml_ops.upkeep.backup import back_up, check_copy
from coinml_ops.upkeep.chunk_store import CHUNK_BYTES, ChunkStore
from coinml_ops.upkeep.moved_home import moves_of
from coinml_ops.upkeep.restore import restore
from coinml_ops.upkeep.unused_home import take_over_record
from tests.helpers.small_sets import SPEC, rows

if TYPE_CHECKING:
    from tests.helpers.kitchen_dataset import Trained

VIDEOS = 5


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home with a ledger that is open, videos, a set, settings and Prefect's database."""
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    settings = Settings()
    folder = settings.videos_dir("mini")
    folder.mkdir(parents=True)
    (folder / ".incoming").mkdir()
    (folder / ".incoming" / "v9.part").write_bytes(b"half")
    with Ledger.of(settings) as ledger:
        ledger.register(
            Dataset(
                name="mini",
                videos=tuple(
                    Video(video_id=f"v{n}", label="A", subset="training", split="train")
                    for n in range(VIDEOS + 1)
                ),
            )
        )
        for n in range(VIDEOS):
            collect_one(ledger, folder, n)
        embeddings = EmbeddingSet.open(settings.embeddings_root, "mini", SPEC, create=True)
        embeddings.append([rows("v0"), rows("v1")])
        write_chosen(settings.data_dir, Chosen(dataset=str(settings.data_dir / "COIN.json")))
        (settings.data_dir / "splits").mkdir()
        (settings.data_dir / "splits" / "x.json").write_text("{}")
        password = settings.data_dir / "access.env"
        password.touch(mode=0o600)
        password.write_text("PASSWORD=secret")
        (settings.data_dir / "prefect").mkdir()
        with closing(sqlite3.connect(settings.data_dir / "prefect" / "prefect.db")) as prefect:
            prefect.execute("CREATE TABLE run (id)")
            prefect.commit()
        settings.logs_dir.mkdir()
        (settings.logs_dir / "coinml.log").write_text("old")
        yield settings


def collect_one(ledger: Ledger, folder: Path, n: int) -> None:
    path = folder / f"v{n}.mp4"
    path.write_bytes(b"video %d " % n * 1000)
    ledger.record_success(
        "mini",
        f"v{n}",
        file=FileFacts(path=str(path), size_bytes=path.stat().st_size, sha256=f"{n:064d}"),
        attempt=Attempt(run_id="r", started_at=datetime(2026, 1, 1, tzinfo=UTC)),
    )


def state_of(settings: Settings) -> list[tuple[str, str, str | None]]:
    with Ledger.of(settings) as ledger:
        return [(row.video_id, row.state, row.path) for row in ledger.rows("mini")]


def chunks_at(place: Path) -> set[str]:
    return {one.name for one in (place / "chunks").rglob("*") if one.is_file()}


def test_a_destroyed_home_comes_back_elsewhere(home: Settings, tmp_path: Path) -> None:
    before = state_of(home)
    report = back_up(home, str(tmp_path / "copies"))
    assert report.files == {
        "ledger": 1,
        "mlflow": 0,
        "prefect": 1,
        "artifacts": 0,
        "embeddings": 2,
        "videos": VIDEOS,
        "settings": 3,
    }
    assert (tmp_path / "copies").stat().st_mode & 0o077 == 0
    shutil.rmtree(home.home)
    there = Settings(home=tmp_path / "elsewhere")
    brought = restore(there, str(tmp_path / "copies"))
    assert brought.moved_from == str(home.home)
    assert moves_of(there) == ()
    assert read_chosen(there.data_dir).dataset == str(there.data_dir / "COIN.json")
    assert state_of(there) == [
        (one, state, path and path.replace(str(home.home), str(there.home)))
        for one, state, path in before
    ]
    with Ledger.of(there) as ledger:
        found = ledger.rows("mini", state=DOWNLOADED)
        assert len(found) == VIDEOS
        assert all(Path(str(row.path)).stat().st_size == row.size_bytes for row in found)
        assert all(len(ledger.attempts("mini", row.video_id)) == 1 for row in found)
    done = EmbeddingSet.open(there.embeddings_root, "mini", SPEC).done()
    assert {one[0] for one in done} == {"v0", "v1"}
    assert (there.data_dir / "access.env").stat().st_mode & 0o777 == 0o600
    assert not there.logs_dir.exists()
    assert not (there.videos_dir("mini") / ".incoming").exists()
    assert not (there.data_dir / "restoring").exists()


def test_the_next_copy_writes_only_what_is_new(home: Settings, tmp_path: Path) -> None:
    place = tmp_path / "copies"
    first = back_up(home, str(place))
    assert first.written_bytes == first.size_bytes
    again = back_up(home, str(place))
    assert again.written_bytes == 0
    with Ledger.of(home) as ledger:
        collect_one(ledger, home.videos_dir("mini"), VIDEOS)
    third = back_up(home, str(place))
    assert third.files["videos"] == VIDEOS + 1
    assert 0 < third.written_bytes < 200_000
    names = ChunkStore(str(place)).snapshot_names()
    assert names == [first.snapshot, again.snapshot, third.snapshot]
    kept = back_up(home, str(place), keep=1)
    assert list(kept.removed) == names
    assert check_copy(ChunkStore(str(place)), kept.snapshot) > 0
    shutil.rmtree(home.home)
    assert restore(home, str(place)).files["videos"] == VIDEOS + 1


def test_a_changed_page_of_a_large_database_is_not_the_whole_database(
    home: Settings, tmp_path: Path
) -> None:
    path = home.data_dir / "sweeps.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE one (id INTEGER PRIMARY KEY, text)")
        connection.executemany("INSERT INTO one (text) VALUES (?)", [(os.urandom(2**20),)] * 20)
        connection.commit()
        back_up(home, str(tmp_path / "copies"))
        connection.execute("UPDATE one SET text = ? WHERE id = 20", (os.urandom(2**20),))
        connection.commit()
    report = back_up(home, str(tmp_path / "copies"))
    assert 0 < report.written_bytes <= 2 * CHUNK_BYTES + 100_000 < path.stat().st_size


def test_a_copy_that_is_cut_off_is_none_and_the_next_one_goes_on(
    home: Settings, tmp_path: Path
) -> None:
    place = tmp_path / "copies"

    def stop(name: str) -> None:
        if name.startswith("videos/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        back_up(home, str(place), on_file=stop)
    there = chunks_at(place)
    assert there
    assert ChunkStore(str(place)).snapshot_names() == []
    with pytest.raises(InvalidInputError, match="no copy at"):
        restore(Settings(home=tmp_path / "elsewhere"), str(place))
    report = back_up(home, str(place))
    assert report.written_bytes < report.size_bytes
    assert there < chunks_at(place)


def test_a_restore_that_is_cut_off_has_no_databases_and_goes_on(
    home: Settings, tmp_path: Path
) -> None:
    place = str(tmp_path / "copies")
    back_up(home, place)
    there = Settings(home=tmp_path / "elsewhere")
    written: list[str] = []

    def stop(name: str) -> None:
        written.append(name)
        if len(written) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(there, place, on_file=stop)
    assert not list(there.home.rglob("*.db"))
    second = back_up(home, place).snapshot
    with pytest.raises(InvalidInputError, match="half restored from the copy"):
        restore(there, place, snapshot=second)
    first = ChunkStore(place).snapshot_names()[0]
    report = restore(there, place, snapshot=first)
    assert 0 < report.written < sum(report.files.values())
    assert len(state_of(there)) == VIDEOS + 1
    with pytest.raises(InvalidInputError, match="in use as a home"):
        restore(there, place)


def test_a_part_alone_comes_back_and_what_is_there_is_kept(home: Settings, tmp_path: Path) -> None:
    place = str(tmp_path / "copies")
    back_up(home, place)
    before = state_of(home)
    ledger_file = home.data_dir / "ledger.db"
    os.truncate(ledger_file, 0)
    report = restore(home, place, only=["ledger"])
    assert state_of(home) == before
    (aside,) = map(Path, report.set_aside)
    assert aside.name.startswith("ledger.db.set-aside-")
    assert aside.stat().st_size == 0
    part = next(Path(home.embeddings_root).rglob("part-*"))
    content = part.read_bytes()
    part.write_bytes(content[:-3])
    report = restore(home, place, only=["embeddings"])
    assert (report.written, part.read_bytes()) == (1, content)
    assert Path(report.set_aside[0]).read_bytes() == content[:-3]
    # What was set aside is in no later copy.
    assert back_up(home, place).files["settings"] == 3


def test_a_damaged_database_is_not_copied(home: Settings, tmp_path: Path) -> None:
    path = home.data_dir / "prefect" / "prefect.db"
    os.truncate(path, 0)
    with pytest.raises(LocalError, match=r"prefect\.db is empty .*--only prefect"):
        back_up(home, str(tmp_path / "copies"))
    assert not (tmp_path / "copies" / "snapshots").exists()


@pytest.mark.parametrize("harm", ["bit", "missing"])
def test_a_damaged_copy_is_named(home: Settings, tmp_path: Path, harm: str) -> None:
    place = tmp_path / "copies"
    report = back_up(home, str(place))
    chunk = max((place / "chunks").rglob("*"), key=lambda one: one.stat().st_size)
    if harm == "bit":
        content = bytearray(chunk.read_bytes())
        content[10] ^= 1
        chunk.write_bytes(content)
    else:
        chunk.unlink()
    with pytest.raises(LocalError, match=chunk.name):
        check_copy(ChunkStore(str(place)), report.snapshot)
    with pytest.raises(LocalError, match=chunk.name):
        restore(Settings(home=tmp_path / "elsewhere"), str(place))
    if harm == "missing":
        # The next copy does not rely on it.
        assert check_copy(ChunkStore(str(place)), back_up(home, str(place)).snapshot) > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backup", "{home}/data/copies"], "which is copied"),
        (["backup", "{copies}", "--without", "films"], "no part 'films' of a home; there are: "),
        (["backup", "none://x"], "not a place for copies"),
        (["restore", "{copies}"], "no copy at"),
    ],
)
def test_wrong_places_and_parts_are_refused(
    home: Settings, tmp_path: Path, arguments: list[str], says: str
) -> None:
    filled = [one.format(home=home.home, copies=tmp_path / "copies") for one in arguments]
    done = CliRunner().invoke(app, filled)
    assert isinstance(done.exception, InvalidInputError)
    assert says in str(done.exception)


def test_the_commands_say_what_they_did(home: Settings, tmp_path: Path) -> None:
    place = str(tmp_path / "copies")
    done = CliRunner().invoke(app, ["backup", place, "--check", "--json", "--without", "videos"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["files"]["settings"] == 3
    assert "videos" not in report["files"]
    done = CliRunner().invoke(app, ["restore", place, "--list"])
    assert done.stdout.split() == [report["snapshot"]]
    done = CliRunner().invoke(app, ["restore", place, "--only", "videos"])
    assert "was made without videos" in str(done.exception)
    done = CliRunner().invoke(app, ["restore", place, "--only", "ledger"])
    assert done.exit_code == 0, done.output
    assert "1 of 1 files were written" in done.stdout


def test_a_stack_that_runs_is_not_restored_over(home: Settings, tmp_path: Path) -> None:
    back_up(home, str(tmp_path / "copies"))
    me = record.Process.of(os.getpid())
    stack = record.Stack(id="x", home=str(home.home), dataset="mini", supervisor=me)
    record.write(stack)
    done = CliRunner().invoke(app, ["restore", str(tmp_path / "copies"), "--only", "ledger"])
    assert "first `coinml down`" in str(done.exception)
    file = record.stack_dir(home.home) / "stack.json"
    file.write_text(file.read_text().replace(str(home.home), str(tmp_path / "former")))
    take_over_record(home)
    assert record.read(home.home) == dataclasses.replace(stack, supervisor=None)


def test_a_registered_model_loads_in_the_restored_home(trained: Trained, tmp_path: Path) -> None:
    import mlflow
    import pandas as pd

    from coinml.tracking.mlflow_store import home_store

    back_up(Settings(home=trained.home), str(tmp_path / "copies"))
    hidden = trained.home.with_name("hidden")
    trained.home.rename(hidden)
    try:
        there = Settings(home=tmp_path / "elsewhere")
        restore(there, str(tmp_path / "copies"))
        home_store(there).client()
        model = mlflow.pyfunc.load_model("models:/kitchen-task@champion")
        video = trained.material.videos["Boil0______"]
        assert model.predict(pd.DataFrame({"video": [str(video)]}))["label"].tolist() == ["Boil"]
        run_id = trained.reports["svm"].run_id
        assert home_store(there).read_table(run_id, "predictions").shape[0] > 5
    finally:
        hidden.rename(trained.home)
        trained.store.client()
