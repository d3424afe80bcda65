"""Rows as records, where another program or an older coinml may have written the database.

A value that cannot be used becomes the harmless one of its field, and the row's message says so;
the other rows, and the command, go on.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from coinml.faults.classification import Fault
from coinml.ledger.records import DOWNLOADED, PENDING, AttemptRow, LedgerRow

STATES = (PENDING, DOWNLOADED, *(str(fault) for fault in Fault))
"""The states that this coinml knows; a video in another one is pending."""

T = TypeVar("T")
Row = TypeVar("Row", LedgerRow, AttemptRow)

_SHOWN = 300


class VideosFolder:
    """The folder of a dataset's collected files, for many rows: it asks the disk little a row."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._real = os.path.realpath(folder)
        self._inside: dict[str, bool] = {}

    def below(self, path: str) -> str | None:
        """The path if it leads below the folder, with all symbolic links followed; else None."""
        full = str(self.folder / path)
        parent = full.rpartition("/")[0]
        try:
            if ".." in path.split("/"):
                return None
            if parent not in self._inside:
                self._inside[parent] = self._holds(parent)
            inside = self._holds(full) if Path(full).is_symlink() else self._inside[parent]
        except (OSError, ValueError):
            # A loop of links, or a null byte.
            return None
        return full if inside and full != str(self.folder) else None

    def _holds(self, path: str) -> bool:
        return f"{os.path.realpath(path)}/".startswith(f"{self._real}/")


def ledger_row(values: Mapping[str, Any], *, folder: VideosFolder | None) -> LedgerRow:
    """A row of the table of videos as a record.

    Args:
        values: The columns by name.
        folder: The folder of the dataset's collected files. A path that does not lead below it is
            dropped, unless it is the user's own file (`origin` "in_place"). None: every path is
            taken.
    """
    odd: list[str] = []
    read = _Reader(values, odd)
    state = read.one_of("state", STATES, instead=PENDING)
    origin = read.text("origin")
    path = read.text("path")
    if path is not None and folder is not None and origin != "in_place":
        below = folder.below(path)
        if below is None:
            odd.append(f"path {_shown(path)} does not lead below {folder.folder}")
        path = below
    row = LedgerRow(
        video_id=read.text("video_id") or "",
        label=read.text("label") or "",
        subset=read.text("subset") or "",
        split=read.text("split") or "",
        duration_s=read.number("duration_s"),
        state=state,
        path=path,
        size_bytes=read.integer("size_bytes"),
        mtime_ns=read.integer("mtime_ns"),
        sha256=read.text("sha256"),
        media_duration_s=read.number("media_duration_s"),
        short_side_px=read.integer("short_side_px"),
        origin=origin,
        attempts=read.integer("attempts") or 0,
        next_attempt_at=read.moment("next_attempt_at"),
        message=read.text("message"),
        tool_version=read.text("tool_version"),
        credentials=read.text("credentials"),
        updated_at=read.moment("updated_at"),
        title=read.text("title"),
        source=read.text("source"),
        url=read.text("url"),
    )
    return _with_message(row, odd)


def attempt_row(values: Mapping[str, Any]) -> AttemptRow:
    """A row of the table of attempts as a record; an unknown outcome counts as transient."""
    odd: list[str] = []
    read = _Reader(values, odd)
    outcomes = tuple(state for state in STATES if state != PENDING)
    row = AttemptRow(
        video_id=read.text("video_id") or "",
        run_id=read.text("run_id") or "",
        started_at=read.moment("started_at") or datetime.fromtimestamp(0, UTC),
        seconds=read.number("seconds") or 0.0,
        outcome=read.one_of("outcome", outcomes, instead=str(Fault.TRANSIENT)),
        message=read.text("message"),
        rule=read.text("rule"),
        size_bytes=read.integer("size_bytes"),
        tool_version=read.text("tool_version"),
        source=read.text("source"),
        url=read.text("url"),
        next_attempt_at=read.moment("next_attempt_at"),
        credentials=read.text("credentials"),
    )
    return _with_message(row, odd)


def finite(value: Any) -> float | None:
    """A number of a database's column; None if it is none or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def text(value: Any) -> str:
    """A text of a database's column; of another type, its Python form."""
    return value if isinstance(value, str) else "" if value is None else str(value)


class _Reader:
    """Reads the columns of one row, and collects what cannot be used."""

    def __init__(self, values: Mapping[str, Any], odd: list[str]) -> None:
        self._values = values
        self._odd = odd

    def text(self, name: str) -> str | None:
        value = self._values[name]
        return None if value is None else text(value)

    def one_of(self, name: str, known: tuple[str, ...], *, instead: str) -> str:
        found = self.text(name)
        if found in known:
            return found
        self._odd.append(f"{name} {_shown(found)} is unknown, taken as {instead}")
        return instead

    def number(self, name: str) -> float | None:
        return self._read(name, finite, "a number")

    def integer(self, name: str) -> int | None:
        found = self._read(name, finite, "a number")
        # Of a float, integers above 2**53 would lose digits.
        value = self._values[name]
        return None if found is None else value if isinstance(value, int) else int(found)

    def moment(self, name: str) -> datetime | None:
        return self._read(name, _moment, "a time")

    def _read(self, name: str, convert: Callable[[Any], T | None], what: str) -> T | None:
        value = self._values[name]
        if value is None:
            return None
        found = convert(value)
        if found is None:
            self._odd.append(f"{name} {_shown(value)} is not {what}")
        return found


def _with_message(row: Row, odd: list[str]) -> Row:
    if not odd:
        return row
    said = f"in the ledger, {'; '.join(odd)}"
    return dataclasses.replace(row, message=f"{said}. {row.message or ''}".strip())


def _moment(value: Any) -> datetime | None:
    number = finite(value)
    try:
        return None if number is None else datetime.fromtimestamp(number, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _shown(value: Any) -> str:
    written = repr(value)
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}…"
