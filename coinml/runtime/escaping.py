"""Text from outside, made safe for where it is shown: one function for each kind of place.

Class names, file names, titles of videos and messages of sources may contain anything. Figures have
`coinml.figures.style.figure_text`, and HTML has Jinja's own escaping after `printable`.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# They turn the order of what follows around, so that text reads as another one.
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
_MARKDOWN = re.compile(r"[\\`*_<>|~]|\](?=[(\[])|&(?=#?\w+;)")
_ID = re.compile(r"[A-Za-z0-9_-]+")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Markdown(str):
    """Text that is Markdown already, such as a link that coinml made."""

    __slots__ = ()


def printable(value: object, *, keep: str = "") -> str:
    r"""Text for a terminal or a log: control characters and the like become `\x1b` or `\u202e`.

    Args:
        value: What is shown.
        keep: Control characters that stay, such as line breaks in text that coinml made.
    """
    text = str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if character not in keep
        and (character in _BIDI or unicodedata.category(character) in _ESCAPED_CATEGORIES)
        else character
        for character in text
    )


def markdown_text(value: object) -> str:
    """Text for Markdown, in which nothing is markup; `Markdown` stays as it is."""
    if isinstance(value, Markdown):
        return str(value)
    one_line = " ".join(str(value).splitlines())
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", printable(one_line))


def csv_text(value: Any, *, column: str = "") -> Any:
    """A cell for CSV: an apostrophe precedes text that a spreadsheet would take for a formula.

    Ids of videos such as `-1x_a` stay as they are, so that tables can be joined by them: without
    operators and brackets they run nothing.

    Args:
        value: The cell.
        column: Name of its column.
    """
    if not isinstance(value, str) or ("video" in column and _ID.fullmatch(value)):
        return value
    # Python's csv quotes a cell for a line feed, and not for a carriage return alone.
    lines = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{lines}" if value.startswith(_FORMULA) else lines


def plain_csv_text(cell: str) -> str:
    """The text that `csv_text` made a cell of, for files that come back after a spreadsheet."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def write_csv(table: pd.DataFrame, file: Any, *, header: bool = True) -> None:
    """Write a table as CSV, in which no text is a formula of a spreadsheet.

    Args:
        table: The table; its index is left out.
        file: A path or an open text file.
        header: Whether the first line is the names of the columns.
    """
    texts = table.select_dtypes(exclude=["number", "bool"])
    safe = table.assign(**{str(name): _csv_column(column) for name, column in texts.items()})
    safe.columns = [csv_text(name) for name in safe.columns]
    safe.to_csv(file, index=False, header=header)


def _csv_column(column: pd.Series[Any]) -> pd.Series[Any]:
    return column.astype(object).map(partial(csv_text, column=str(column.name)))


def csv_of_rows(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV where there is no table; see `write_csv`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [csv_text(cell) for cell in row] for row in rows
    )
    return text.getvalue()
