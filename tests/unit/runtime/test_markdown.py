from __future__ import annotations

from coinml.runtime.markdown import markdown_table


def test_a_table_has_one_line_a_row_whatever_the_cells_hold() -> None:
    assert markdown_table(("class", "videos"), [("Boil|Egg", 3), ("two\nlines", 4.5)]) == (
        "| class | videos |\n| --- | --- |\n| Boil\\|Egg | 3 |\n| two lines | 4.5 |"
    )
