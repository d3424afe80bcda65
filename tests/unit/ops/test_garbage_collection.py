"""Garbage collection in a separate thread keeps SQLite's writers from a deadlock."""

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

    # A failed statement, whose cursor is in a reference cycle that only the collector frees.
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
    # Allocations may trigger a collection in this thread, before it ends the transaction.
    kept = [[] for _ in range(100_000)]
    ours.execute("COMMIT")
    writer.join()
    print(*said)
""")


def test_collecting_a_failed_cursor_blocks_no_writer(tmp_path: Path) -> None:
    """On Python 3.11, collecting it in the event loop's thread would block a server."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "counts.db")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.stdout.strip(), run.stderr) == ("written", "")
