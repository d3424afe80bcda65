"""A ledger goes on in another database where it was in the first."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from coinml.errors import InvalidInputError
from coinml.faults.classification import Fault
from coinml.ledger import Ledger, new_owner
from coinml.ledger.copy_ledger import copy_ledger
from coinml.ledger.schema import sources
from coinml_cli.app import app
from coinml_ops.stack.postgres import Databases
from tests.helpers.ledger_rows import attempt, dataset, facts, ids
from tests.helpers.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'there' / 'ledger.db'}"
    return str(request.getfixturevalue("postgres_server").new_database())


@pytest.fixture
def used(tmp_path: Path) -> str:
    """A ledger in the middle of a collection: attempts, faults, a blocked source."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger(url) as ledger:
        ledger.register(dataset(8))
        names = ids(8)
        ledger.record_success("mini", names[0], file=facts(names[0]), attempt=attempt())
        for name, fault in zip(
            names[1:], (Fault.GONE, Fault.TRANSIENT, Fault.RESTRICTED), strict=False
        ):
            ledger.record_fault(
                "mini",
                name,
                fault=fault,
                message="why",
                next_attempt_at=datetime(2100, 1, 1, tzinfo=UTC),
                attempt=attempt(),
            )
        until = (datetime.now(UTC) + timedelta(hours=5)).timestamp()
        ledger.database.write(
            lambda connection: connection.execute(
                sources.insert().values(
                    source="host", full_at=3.5, blocked_until=until, strikes=2, probe_owner="x"
                )
            )
        )
    return url


def everything(url: str) -> dict[str, object]:
    with Ledger(url) as ledger:
        return {
            "rows": ledger.rows("mini"),
            "attempts": [ledger.attempts("mini", one) for one in ids(8)],
            "due": ledger.due("mini"),
            "status": ledger.status("mini"),
        }


def test_nothing_is_forgotten_and_it_goes_on(used: str, destination: str) -> None:
    before = everything(used)
    copied = copy_ledger(used, destination)
    assert copied.rows == {"videos": 8, "attempts": 4, "sources": 1, "datasets": 0}
    assert copied.changed == ()
    assert everything(destination) == before == everything(used)
    with Ledger(destination) as ledger:
        row = ledger.database.read(lambda connection: connection.execute(select(sources)).one())
        assert (row.full_at, row.strikes, row.probe_owner) == (3.5, 2, None)
        # Ids of new attempts begin after the copied ones.
        ledger.record_success("mini", ids(8)[4], file=facts(ids(8)[4]), attempt=attempt())
        assert len(ledger.attempts("mini", ids(8)[4])) == 1
    with pytest.raises(InvalidInputError, match=r"it has \w+ already"):
        copy_ledger(used, destination)


def test_a_ledger_in_use_is_not_copied(used: str, destination: str) -> None:
    with Ledger(used) as ledger:
        ledger.claim("mini", ids(8)[5:6], owner=new_owner())
    with pytest.raises(InvalidInputError, match="is downloading videos of this ledger"):
        copy_ledger(used, destination)
    with Ledger(destination) as there:
        assert there.datasets() == []


def test_values_that_the_database_cannot_hold_are_named(used: str, destination: str) -> None:
    with closing(sqlite3.connect(used.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE videos SET duration_s = 'long' WHERE video_id = ?", ids(8)[6:7])
        connection.execute("UPDATE attempts SET message = 'a' || char(0) || 'b' WHERE id = 1")
        connection.commit()
    changed = copy_ledger(used, destination).changed
    assert len(changed) == 2
    assert any("duration_s: 'long' became None" in one for one in changed)
    assert any(one.startswith("attempts 1, message: 'a\\x00b'") for one in changed)


def test_wrong_ledgers_are_refused(used: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is the ledger itself"):
        copy_ledger(used, used)
    with pytest.raises(InvalidInputError, match="there is no ledger yet"):
        copy_ledger(f"sqlite:///{tmp_path / 'none.db'}", f"sqlite:///{tmp_path / 'new.db'}")
    assert not (tmp_path / "new.db").exists()


def test_the_command_creates_the_database_of_up(
    used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_server: PostgresServer
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COINML_LEDGER_URL", used)
    done = CliRunner().invoke(app, ["move-ledger"])
    assert "give --to, or the server in COINML_POSTGRES" in str(done.exception)
    server = f"{postgres_server.address}/moved"
    monkeypatch.setenv("COINML_POSTGRES", server)
    done = CliRunner().invoke(app, ["move-ledger", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rows"]["videos"] == 8
    assert everything(Databases(server).ledger) == everything(used)
