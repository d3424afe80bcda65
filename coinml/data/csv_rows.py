"""Rows of CSV files that people write, with their line numbers for messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from coinml.data.names import listed, shown
from coinml.errors import InvalidInputError


def read_csv_rows(
    path: Path, *, known: Sequence[str], needed: Sequence[str]
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header of a CSV file, and the line number and cells of each row; empty rows are skipped.

    Args:
        path: The file, in UTF-8.
        known: The columns that it may have.
        needed: Those that it must have.

    Raises:
        InvalidInputError: The file cannot be read or is not CSV in UTF-8, a column is missing,
            unknown or there twice, or a row has another number of cells.
    """
    rows = _parsed(path)
    line, cells = rows[0] if rows else (1, [])
    header = [cell.strip() for cell in cells]
    wrong = [
        *(f"no column {name!r}" for name in needed if name not in header),
        *(f"unknown column {shown(name)}" for name in header if name not in known),
        *(f"column {name!r} twice" for name in known if header.count(name) > 1),
    ]
    if wrong:
        raise InvalidInputError(
            f"{path}: line {line}: {listed(wrong)}; the columns {', '.join(known)} are allowed, "
            f"separated by commas, and {', '.join(needed)} are needed"
        )
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise InvalidInputError(
                f"{path}: line {line}: {len(cells)} cells for {len(header)} columns; a cell with a "
                'comma is written in quotes ("a, b")'
            )
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in rows[1:]]


def _parsed(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as err:
        raise InvalidInputError(f"{path}: cannot be read: {err.strerror or err}") from err
    except UnicodeDecodeError as err:
        raise InvalidInputError(
            f"{path}: byte {err.start:,} is not UTF-8; save it as UTF-8"
        ) from err
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as err:
        raise InvalidInputError(f"{path}: line {reader.line_num}: not CSV: {err}") from err
