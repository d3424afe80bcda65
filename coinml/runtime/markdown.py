"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from coinml.runtime.escaping import markdown_text


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with one line per row, without a final line break.

    A cell may contain any text; `Markdown` stays markup.
    """
    lines = [f"| {' | '.join(map(markdown_text, row))} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])
