"""Telling that a home is not where its databases say: it was renamed, copied, or mounted elsewhere.

Databases record absolute paths. A former place is known from what a path names below the home, if
the same is in the present home: artifacts of experiments, collected videos, the stack's record.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from coinml.errors import InvalidInputError
from coinml.runtime.addresses import parts_of
from coinml.runtime.settings import Settings
from coinml_ops.home_databases import LEDGER, MLFLOW, databases
from coinml_ops.stack import record
from coinml_ops.upkeep.relocate import Move

REMEDY = "`coinml move-home` changes these paths; with --dry-run, it says which"

_VIDEOS = "/data/videos/"
_SAMPLE = 20
"""Files of each former place that are looked for in the present one."""


def moves_of(settings: Settings) -> tuple[Move, ...]:
    """Where this home was, as far as its databases still have paths of there; none: ().

    A home that is reached by two paths at once (a link, a second mount) has not moved.
    """
    found = (
        *_of_stack(settings.home),
        *_of_experiments(settings),
        *_of_videos(settings.home),
    )
    return tuple(dict.fromkeys(found))


def check_place(settings: Settings) -> None:
    """Refuse to work with a home whose databases name another place.

    Runs would be logged there, and models and videos be looked for there.

    Raises:
        InvalidInputError: The home was moved or copied.
    """
    if moves := moves_of(settings):
        raise InvalidInputError(f"{said(settings, moves)}; {REMEDY}")


def said(settings: Settings, moves: Sequence[Move]) -> str:
    """That a home was moved, as a sentence for messages."""
    old = " and ".join(str(move.old) for move in moves)
    return f"the home {settings.home} was at {old}, and its databases still name files there"


def _of_stack(home: Path) -> Iterator[Move]:
    stack = record.read(home)
    if stack is not None and stack.moved_from:
        yield Move(Path(stack.moved_from), home)


def _of_experiments(settings: Settings) -> Iterator[Move]:
    """From the folders of experiments, which are `<home>/mlartifacts/<name>`."""
    root = settings.artifact_root
    for (location,) in _rows(
        databases(settings.home)[MLFLOW],
        "SELECT DISTINCT artifact_location FROM experiments WHERE artifact_location LIKE 'file:%'",
    ):
        there = Path(unquote(parts_of(location).path))
        here = root / there.name
        if there == here or not here.is_dir() or _is_one(there, here):
            continue
        if root.is_symlink():
            # Only the folder that the link leads to has moved.
            yield Move(there.parent, root)
        elif there.parent.name == root.name:
            yield Move(there.parent.parent, settings.home)


def _of_videos(home: Path) -> Iterator[Move]:
    """From the paths of collected videos, which are `<home>/data/videos/<dataset>/<file>`."""
    ledger = databases(home)[LEDGER]
    for (place,) in _rows(
        ledger,
        "SELECT DISTINCT substr(path, 1, instr(path, ?) - 1) FROM videos WHERE instr(path, ?) > 0",
        _VIDEOS,
        _VIDEOS,
    ):
        if place == str(home):
            continue
        paths = _rows(
            ledger,
            "SELECT path FROM videos WHERE substr(path, 1, ?) = ? LIMIT ?",
            len(place + _VIDEOS),
            place + _VIDEOS,
            _SAMPLE,
        )
        for (path,) in paths:
            here = home / Path(path).relative_to(place)
            if here.is_file() and not _is_one(Path(path), here):
                yield Move(Path(place), home)
                break


def _is_one(there: Path, here: Path) -> bool:
    try:
        return there.samefile(here)
    except OSError:
        return False


def _rows(database: Path, query: str, *values: object) -> list[tuple[str, ...]]:
    """Rows of a database; none if it is not there, damaged, in use or of another version."""
    if not database.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error:
        return []
