"""Damaged database files are told by their size and header; a database in use is copied."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from coinml.errors import LocalError
from coinml.runtime.sqlite_files import copy_database, damage_of, refuse_damaged

WRITER = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("CREATE TABLE numbers (number)")
connection.executemany("INSERT INTO numbers VALUES (?)", [(one,) for one in range(5000)])
connection.commit()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """A database whose writer was killed: all rows are in its log."""
    path = tmp_path / "numbers.db"
    subprocess.run([sys.executable, "-c", WRITER, str(path)], check=False)
    assert path.with_name("numbers.db-wal").stat().st_size > path.stat().st_size
    return path


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM numbers").fetchone()[0])


def test_a_copy_has_what_only_the_log_has(killed: Path, tmp_path: Path) -> None:
    copy_database(killed, tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy.db-*"))
    assert count(tmp_path / "copy.db") == 5000
    # A copy of the file alone has lost them.
    (tmp_path / "cp.db").write_bytes(killed.read_bytes())
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        count(tmp_path / "cp.db")


def test_a_copy_while_others_write_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "open.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE numbers (number)")
        connection.commit()
        connection.execute("INSERT INTO numbers VALUES (1)")
        copy_database(path, tmp_path / "copy.db")
        connection.commit()
    assert (count(tmp_path / "copy.db"), count(path)) == (0, 1)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (0, r"is empty \(0 bytes\)"),
        (50, "is no database: its 50 bytes"),
        (8192, r"is truncated: it has 8,192 of [\d,]+ bytes"),
    ],
)
def test_a_truncated_database_is_named_with_the_way_back(
    killed: Path, harm: int, says: str
) -> None:
    assert damage_of(killed) is None
    assert count(killed) == 5000
    assert damage_of(killed) is None
    os.truncate(killed, harm)
    with pytest.raises(LocalError, match=says) as caught:
        refuse_damaged(killed, "ledger", "go home")
    assert str(killed) in str(caught.value)
    assert "coinml restore PLACE --only ledger" in str(caught.value)
    assert "without one, go home" in str(caught.value)


def test_text_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("to do: " * 100)
    assert "is no database" in str(damage_of(path))
    assert damage_of(tmp_path / "none.db") is None


def test_a_damaged_page_is_found_when_it_is_copied(killed: Path, tmp_path: Path) -> None:
    count(killed)
    content = bytearray(killed.read_bytes())
    content[4096:8192] = bytes(4096)
    killed.write_bytes(content)
    with pytest.raises(LocalError, match=r"numbers\.db (is damaged|cannot be copied)"):
        copy_database(killed, tmp_path / "copy.db")
