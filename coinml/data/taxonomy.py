"""COIN's taxonomy: 12 domains, 180 tasks, 778 steps."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coinml.data.names import plain_name
from coinml.errors import InvalidInputError

DOMAIN_CSV = "taxonomy_domain_target_mapping.csv"
STEP_CSV = "taxonomy_target_action_mapping.csv"
WORKBOOK = "taxonomy.xlsx"
TAXONOMY_FILES = (DOMAIN_CSV, STEP_CSV, WORKBOOK)
DOMAIN_COLUMNS = ("Domains", "Targets")
STEP_COLUMNS = ("Target Id", "Target Label", "Action Id", "Action Label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taxonomy:
    """Domains, tasks and steps.

    Attributes:
        domains: Domain by task.
        steps: Label by step id; 25 labels have two ids.
        tasks_of_step: The tasks in which a step occurs, by step id.
    """

    domains: Mapping[str, str]
    steps: Mapping[str, str]
    tasks_of_step: Mapping[str, tuple[str, ...]]


def find_taxonomy(folder: Path) -> Taxonomy | None:
    """The taxonomy beside the annotations: the official workbook or its sheets as CSV."""
    if (folder / DOMAIN_CSV).is_file():
        steps = folder / STEP_CSV
        return _taxonomy(
            _csv_rows(folder / DOMAIN_CSV, DOMAIN_COLUMNS),
            _csv_rows(steps, STEP_COLUMNS) if steps.is_file() else (),
        )
    if (folder / WORKBOOK).is_file():
        return _read_workbook(folder / WORKBOOK)
    return None


def _taxonomy(
    domain_rows: Iterator[Sequence[str]] | Sequence[Sequence[str]],
    step_rows: Iterator[Sequence[str]] | Sequence[Sequence[str]],
) -> Taxonomy:
    domains = {task: domain for domain, task in domain_rows}
    steps: dict[str, str] = {}
    tasks: dict[str, list[str]] = {}
    for _, task, step_id, label in step_rows:
        steps[step_id] = label
        tasks.setdefault(step_id, []).append(task)
    return Taxonomy(
        domains=domains,
        steps=steps,
        tasks_of_step={step_id: tuple(names) for step_id, names in tasks.items()},
    )


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise InvalidInputError(f"{path}: byte {err.start:,} is not UTF-8: {err.reason}") from err
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(rows, [])
        if header != list(columns):
            raise InvalidInputError(f"{path}: the columns are {header}, expected {list(columns)}")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(columns) or not all(row):
                raise InvalidInputError(
                    f"{path}, line {number}: {row} does not fill the columns {list(columns)}"
                )
            yield [plain_name(cell, f"{path}, line {number}") for cell in row]
    except csv.Error as err:
        raise InvalidInputError(f"{path}: not CSV: {err}") from err


def _read_workbook(path: Path) -> Taxonomy:
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as err:
        raise InvalidInputError(f"{path}: not a readable workbook: {err}") from err
    found: dict[tuple[str, ...], list[list[str]]] = {}
    for sheet in book.worksheets:
        rows = [
            [
                plain_name(str(cell), f"{path}, sheet {sheet.title!r}")
                for cell in row
                if cell is not None
            ]
            for row in sheet.values
        ]
        rows = [row for row in rows if row]
        if rows:
            found[tuple(rows[0])] = rows[1:]
    if DOMAIN_COLUMNS not in found:
        raise InvalidInputError(
            f"{path}: no sheet has the columns {list(DOMAIN_COLUMNS)}; "
            f"found {[list(header) for header in found]}"
        )
    # A domain is written once for all of its tasks (merged cells).
    domain_rows: list[list[str]] = []
    for row in found[DOMAIN_COLUMNS]:
        domain_rows.append(row if len(row) == 2 else [domain_rows[-1][0], row[0]])
    return _taxonomy(domain_rows, found.get(STEP_COLUMNS, []))
