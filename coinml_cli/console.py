"""Terminal output: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.runtime.escaping import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.progress import Progress, TaskID


def print_json(value: Any) -> None:
    """Print one JSON document to stdout."""
    json.dump(value, sys.stdout, indent=2, default=str, allow_nan=False)
    sys.stdout.write("\n")


def command(name: str) -> str:
    """A command of this environment as the user can type it here, activated or not."""
    if shutil.which(name):
        return name
    beside = Path(sys.executable).parent / name
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def note(text: str) -> None:
    """Print a line for the user to stderr."""
    _err().print(printable(text, keep="\n"), markup=False, highlight=False, soft_wrap=True)


def heading(text: str) -> None:
    """Print the title of a section of results to stdout."""
    from rich.text import Text

    _out().print(Text(f"\n{printable(text)}", style="bold"))


def line(text: str = "") -> None:
    """Print a line of results to stdout."""
    _out().print(printable(text, keep="\n"), markup=False, highlight=False, soft_wrap=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print a table of results to stdout; columns of numbers are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(cell, keep="\n") for cell in row] for row in rows]
    shown = Table(
        title=printable(title) or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    for position, name in enumerate(columns):
        column = [row[position] for row in cells]
        numbers = bool(column) and all(_is_number(cell) for cell in column)
        shown.add_column(
            Text(printable(name)), justify="right" if numbers else "left", overflow="fold"
        )
    for row in cells:
        shown.add_row(*map(Text, row))
    _out().print(shown)


class ProgressBars:
    """A progress bar for each stage, left as a line when the stage has ended (`Listener`)."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    def __enter__(self) -> ProgressBars:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=_err(),
        )
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def begin(self, stage: str, total: int | None) -> None:
        """Show a bar for the stage, unless it has no items."""
        if self._progress is not None and total != 0:
            self._bars[stage] = self._progress.add_task(stage, total=total)

    def advance(self, stage: str, items: int, total: int | None) -> None:
        """Advance the bar by some items; a `total` replaces the former one."""
        if self._progress is not None and stage in self._bars:
            # A total of None changes nothing.
            self._progress.update(self._bars[stage], advance=items, total=total)

    def end(self, stage: str) -> None:
        """Stop the bar's clock and leave it on screen; a bar that never advanced is removed."""
        bar = self._bars.pop(stage, None)
        if self._progress is None or bar is None:
            return
        if self._progress.tasks[self._progress.task_ids.index(bar)].completed:
            self._progress.stop_task(bar)
        else:
            self._progress.remove_task(bar)


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").replace("%", "").strip().lstrip("-").isdigit()


@functools.cache
def _out() -> Any:
    from rich.console import Console

    # A pipe has no width, and rich would assume 80 columns, too few for the tables.
    return Console(width=None if sys.stdout.isatty() else 140)


@functools.cache
def _err() -> Any:
    from rich.console import Console

    return Console(stderr=True)
