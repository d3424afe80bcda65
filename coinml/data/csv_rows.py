"""Rows of CSV files that people write, with their line numbers for messages."""

from __future__ import annotations

import csv
import io
import itertools
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
            unknown or there twice, or a row has another number of cells; the text names the line,
            for a row of several lines the first.
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
                f"{path}: line {line}: {len(cells)} cells for {len(header)} columns: "
                f"{_paired(header, cells)}; a cell with a comma is written in quotes "
                '("a, b"), and an empty one has its comma'
            )
    return header, [(line, dict(zip(header, cells, strict=True))) for line, cells in rows[1:]]


def _parsed(path: Path) -> list[tuple[int, list[str]]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as err:
        raise InvalidInputError(f"{path}: cannot be read: {err.strerror or err}") from err
    except UnicodeDecodeError as err:
        line = len((err.object[: err.start] + b"|").splitlines())
        raise InvalidInputError(
            f"{path}: line {line}: byte {err.start:,} ({err.object[err.start : err.end].hex(' ')}) "
            "is not UTF-8; save it as UTF-8 (iconv -f latin1 -t utf-8)"
        ) from err
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = 1
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((first, row))
            first = reader.line_num + 1
    except csv.Error as err:
        begin = next(itertools.islice(io.StringIO(text, newline=""), first - 1, None), "").rstrip(
            "\r\n"
        )
        raise InvalidInputError(
            f"{path}: line {first}: {shown(begin)} is not CSV ({err}); a cell with quotes is "
            'written in quotes, and each of its own twice ("a ""b"" c")'
        ) from err
    return rows


def _paired(header: Sequence[str], cells: Sequence[str]) -> str:
    """The columns with their cells, up to the first one that has no partner."""
    pairs = [f"{name} {shown(cell)}" for name, cell in zip(header, cells, strict=False)]
    if len(cells) > len(header):
        return f"{', '.join(pairs)}, then {shown(cells[len(header)])}"
    return f"{', '.join(pairs)}, and none for {header[len(cells)]}"
