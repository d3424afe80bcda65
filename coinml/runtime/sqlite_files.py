"""SQLite's files: recognising one, telling that one is damaged, and copying one in use."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from coinml.errors import LocalError

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_WAIT_S = 60.0
SIDE_FILES = ("-wal", "-shm", "-journal")
"""Endings of what SQLite keeps beside a database that is open or was left by a crash."""


def is_sqlite(path: Path) -> bool:
    """Whether a file begins like a database of SQLite's."""
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def damage_of(path: Path) -> str | None:
    """What is wrong with a database's file, as far as its size and header tell; None: nothing.

    The file is not opened as a database: SQLite takes an empty one for new, and removes the
    write-ahead log beside it, which may be all that is left.
    """
    try:
        size_bytes = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except FileNotFoundError:
        return None
    except OSError as err:
        return f"cannot be read: {err.strerror}"
    if not size_bytes:
        return "is empty (0 bytes)"
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        return f"is no database: its {size_bytes} bytes do not begin like SQLite's"
    if any(_has_content(path.with_name(path.name + ending)) for ending in ("-wal", "-journal")):
        # A transaction is under way: pages may be announced in the header before they are there.
        return None
    page_bytes = int.from_bytes(header[16:18]) or 0
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    # The number of pages is up to date where the two counters agree (SQLite's file format, 1.3.7).
    expected = int.from_bytes(header[28:32]) * page_bytes
    if header[24:28] == header[92:96] and size_bytes < expected:
        return f"is truncated: it has {size_bytes:,} of {expected:,} bytes"
    return None


def refuse_damaged(path: Path, name: str, otherwise: str) -> None:
    """Raise an error with the way back if a database's file is damaged.

    Args:
        path: The file; it may be missing.
        name: Its name in `coinml restore --only`.
        otherwise: What can be done without a copy.

    Raises:
        LocalError: It is damaged.
    """
    found = damage_of(path)
    if found is not None:
        raise LocalError(f"the database {path} {found}; {way_back(name, otherwise)}")


def way_back(name: str, otherwise: str) -> str:
    """What to do about a damaged database: a sentence for messages."""
    return (
        f"`coinml restore PLACE --only {name}` sets it aside and brings back the copy of the last "
        f"`coinml backup PLACE`; without one, {otherwise}"
    )


def says_damaged(err: BaseException | None) -> bool:
    """Whether an error of SQLite's says that the file is damaged."""
    text = str(err)
    return "malformed" in text or "not a database" in text


def copy_database(path: Path, target: Path) -> None:
    """Copy a database that others may be writing to, and check the copy.

    Args:
        path: The database.
        target: A file that does not exist.

    Raises:
        LocalError: It is damaged, or cannot be read or copied.
    """
    try:
        source = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)
        copy = sqlite3.connect(target)
        try:
            # All pages in one step, in one state: in several steps each write begins it again.
            source.backup(copy)
            found = copy.execute("PRAGMA quick_check(1)").fetchone()[0]
            # The copy is one file; it is opened as before, since its header says so.
            copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            copy.close()
            source.close()
    except sqlite3.Error as err:
        raise LocalError(f"the database {path} cannot be copied: {err}") from err
    if found != "ok":
        raise LocalError(f"the database {path} is damaged: {found}")


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except OSError:
        return False
