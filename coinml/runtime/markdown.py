"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with one line per row, without a final line break; cells may contain any text."""
    lines = [f"| {' | '.join(_cell(value) for value in row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", r"\|").splitlines())
