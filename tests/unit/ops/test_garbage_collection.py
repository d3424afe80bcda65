"""Where garbage is collected decides whether SQLite's writers wait for one another for ever."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

SCRIPT = textwrap.dedent("""
    import sqlite3, sys, threading, time
    from coinml_ops.prefect_server.garbage_collection import collect_in_a_thread

    collect_in_a_thread()

    def connect():
        return sqlite3.connect(sys.argv[1], isolation_level=None, check_same_thread=False)

    ours, other = connect(), connect()
    ours.execute("PRAGMA journal_mode = WAL")
    ours.execute("CREATE TABLE counts (n)")
    ours.execute("INSERT INTO counts VALUES (1)")
    ours.execute("BEGIN IMMEDIATE")

    # A statement that failed; its cursor is garbage of the kind that only a collection finds.
    other.execute("PRAGMA busy_timeout = 1")
    failed = [other.cursor()]
    failed.append(failed)
    try:
        failed[0].execute("UPDATE counts SET n = n + 1")
    except sqlite3.OperationalError as err:
        assert "locked" in str(err)
    other.execute("PRAGMA busy_timeout = 5000")
    del failed

    said = []

    def write_again():
        try:
            other.execute("UPDATE counts SET n = n + 1")
            said.append("written")
        except sqlite3.OperationalError as err:
            said.append(str(err))

    writer = threading.Thread(target=write_again)
    writer.start()
    time.sleep(1)
    # Whatever this thread does, it makes objects; what ends the transaction comes after that.
    kept = [[] for _ in range(100_000)]
    ours.execute("COMMIT")
    writer.join()
    print(*said)
""")


def test_a_cursor_that_is_garbage_holds_up_nobody(tmp_path: Path) -> None:
    """As a server's event loop is held up, on Python 3.11, by collecting in its own thread."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "counts.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.stdout.strip(), run.stderr) == ("written", "")
