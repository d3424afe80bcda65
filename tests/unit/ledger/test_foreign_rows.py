"""Rows that another program wrote into a shared ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from coinml.collection.pacing import Pace, Pacer
from coinml.collection.recheck import recheck
from coinml.embedding.jobs import plan_jobs
from coinml.ledger import DOWNLOADED, PENDING, FileFacts, Ledger
from coinml.runtime.process_identity import is_dead, new_owner
from tests.helpers.ledger_rows import NOW, attempt, dataset, ids

Run = Callable[..., None]


@pytest.fixture
def url(ledger_url: str) -> str:
    """SQLite's and PostgreSQL's."""
    return ledger_url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos" / "mini"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def ledger(url: str, folder: Path) -> Iterator[Ledger]:
    """Six downloaded videos, with their files."""
    with Ledger(url, videos=folder.parent) as ledger:
        ledger.register(dataset())
        for one in ids():
            path = folder / f"{one}.mp4"
            path.write_bytes(b"0123456789")
            facts = FileFacts(path=str(path), size_bytes=10, sha256="ab" * 32, mtime_ns=1)
            ledger.record_success("mini", one, file=facts, attempt=attempt())
        yield ledger


@pytest.fixture
def run(url: str) -> Iterator[Run]:
    """Runs SQL as another program would."""
    engine = create_engine(url)

    def execute(statement: str, **values: Any) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement), values)

    yield execute
    engine.dispose()


def test_a_path_that_does_not_lead_below_the_videos_is_not_taken(
    ledger: Ledger, run: Run, folder: Path, tmp_path: Path
) -> None:
    private = tmp_path / "private.mp4"
    private.write_bytes(b"0123456789")
    (folder / "link.mp4").symlink_to(private)
    (folder / "loop.mp4").symlink_to(folder / "loop.mp4")
    (tmp_path / "videos" / "other").mkdir()
    foreign = {
        ids()[0]: str(private),
        ids()[1]: str(folder / ".." / ".." / "private.mp4"),
        ids()[2]: str(folder / "link.mp4"),
        ids()[3]: str(tmp_path / "videos" / "other" / "x.mp4"),
        ids()[4]: "../../private.mp4",
    }
    for one, path in foreign.items():
        run("UPDATE videos SET path = :path WHERE video_id = :one", path=path, one=one)
    run("UPDATE videos SET origin = 'elsewhere' WHERE video_id = :one", one=ids()[0])
    rows = {row.video_id: row for row in ledger.rows("mini", state=DOWNLOADED)}
    assert len(rows) == 6
    for one, path in foreign.items():
        assert rows[one].path is None
        assert f"path {path!r} does not lead below {folder}" in str(rows[one].message)
    assert rows[ids()[5]].path == str(folder / f"{ids()[5]}.mp4")
    assert rows[ids()[5]].message is None
    jobs = plan_jobs(dataset().videos, rows.values(), "video")
    assert [job.video_id for job in jobs] == [ids()[5]]
    # The file of another is neither read nor moved.
    ledger.quarantine("mini", ids()[0], "does not decode")
    report = recheck(ledger, "mini", deep=True)
    assert set(report.missing) == set(foreign) - {ids()[0]}
    assert private.read_bytes() == b"0123456789"
    assert not (tmp_path / ".quarantine").exists()
    assert "does not lead below" in str(ledger.row("mini", ids()[1]).message)


def test_the_users_own_files_and_a_relative_path_are_taken(
    ledger: Ledger, run: Run, folder: Path, tmp_path: Path
) -> None:
    own = str(tmp_path / "own.mp4")
    run(
        "UPDATE videos SET path = :path, origin = 'in_place' WHERE video_id = :one",
        path=own,
        one=ids()[0],
    )
    run("UPDATE videos SET path = 'a/b.mp4' WHERE video_id = :one", one=ids()[1])
    assert ledger.row("mini", ids()[0]).path == own
    assert ledger.row("mini", ids()[1]).path == str(folder / "a" / "b.mp4")


def test_a_folder_of_videos_may_be_a_link(ledger: Ledger, folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "large disk")
    folder.symlink_to(tmp_path / "large disk")
    assert all(row.path for row in ledger.rows("mini"))


def test_an_unknown_state_is_pending_and_said_in_its_row(ledger: Ledger, run: Run) -> None:
    run("UPDATE videos SET state = 'teleported', message = 'x' WHERE video_id = :one", one=ids()[0])
    row = ledger.row("mini", ids()[0])
    assert row.state == PENDING
    assert row.message == "in the ledger, state 'teleported' is unknown, taken as pending. x"
    status = ledger.status("mini")
    assert (status.total, status.downloaded, status.pending, status.due) == (6, 5, 1, 1)
    assert ledger.due("mini") == [ids()[0]]
    assert [other.state for other in ledger.rows("mini")].count(DOWNLOADED) == 5


def test_an_unknown_outcome_of_an_attempt_is_transient(ledger: Ledger, run: Run) -> None:
    run("UPDATE attempts SET outcome = 'teleported' WHERE video_id = :one", one=ids()[0])
    (found,) = ledger.attempts("mini", ids()[0])
    assert found.outcome == "transient"
    assert "outcome 'teleported' is unknown" in str(found.message)


@pytest.mark.parametrize("value", ["'NaN'", "'Infinity'", "1e300", "-1e300", "'soon'"])
def test_times_and_numbers_that_are_none_are_left_out(
    ledger: Ledger, run: Run, url: str, value: str
) -> None:
    if value == "'soon'" and not url.startswith("sqlite"):
        pytest.skip("PostgreSQL itself refuses it")
    run(
        f"UPDATE videos SET state = 'transient', next_attempt_at = {value}, updated_at = {value}, "
        f"duration_s = {value} WHERE video_id = :one",
        one=ids()[0],
    )
    run(f"UPDATE attempts SET started_at = {value}, seconds = {value}")
    row = ledger.row("mini", ids()[0])
    assert row.next_attempt_at is row.updated_at is None
    assert "next_attempt_at" in str(row.message)
    assert len(ledger.rows("mini")) == 6
    assert len(ledger.attempts("mini", ids()[0])) == 1
    assert ledger.status("mini", now=NOW).faults == {"transient": 1}


def test_columns_of_other_types_are_left_out(ledger: Ledger, run: Run, url: str) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL itself refuses them")
    run(
        "UPDATE videos SET state = 'pending', size_bytes = 'many', attempts = x'00', title = 7, "
        "label = x'ff', lease_owner = 'a|b|c|d', lease_until = 'later' WHERE video_id = :one",
        one=ids()[0],
    )
    row = ledger.row("mini", ids()[0])
    assert (row.size_bytes, row.attempts, row.title) == (None, 0, "7")
    assert "size_bytes 'many' is not a number" in str(row.message)
    assert ledger.status("mini").total == 6
    assert ledger.claim("mini", ids()[:1], owner="me") == ids()[:1]


def test_a_name_of_a_process_that_is_none_is_not_dead() -> None:
    host = new_owner().partition("|")[0]
    assert not is_dead(f"{host}|not-a-pid|x|y")


def test_the_pace_goes_on_with_broken_numbers(ledger: Ledger, run: Run, url: str) -> None:
    pacer = Pacer(ledger.database, "host", owner="me", pace=Pace(rate_per_hour=3600, burst=2))
    pacer.admit()
    value = "'soon'" if url.startswith("sqlite") else "'NaN'"
    run(
        "INSERT INTO sources (source, full_at, blocked_until, strikes) "
        f"VALUES ('host', {value}, {value}, 0)"
    )
    assert pacer.admit().kind == "go"


def test_commands_go_on_with_such_rows(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    url = f"sqlite:///{home / 'data' / 'ledger.db'}"
    (home / "data").mkdir(parents=True)
    with Ledger(url) as ledger:
        ledger.register(dataset())
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE videos SET state = 'downloaded', origin = 'download', "
                "path = '/etc/hostname', updated_at = 'now', sha256 = 'ab' WHERE video_id = :one"
            ),
            {"one": ids()[0]},
        )
        connection.execute(
            text("UPDATE videos SET state = 'later' WHERE video_id = :one"), {"one": ids()[1]}
        )
    engine.dispose()
    command = [str(Path(sys.executable).parent / "coinml"), "status", "--name", "mini", "--json"]
    monkeypatch.setenv("COINML_HOME", str(home))
    for more in ((), ("--video", ids()[0])):
        arguments = [one for one in command if one not in ("--name", "mini")]
        done = subprocess.run(
            [*arguments, "--dataset", "mini", *more], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
    assert said["path"] is None
    assert "path '/etc/hostname' does not lead below" in said["message"]
