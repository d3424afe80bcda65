"""What comes from outside stays text in terminals, Markdown, CSV and logs."""

from __future__ import annotations

import ast
import csv
import io
import logging
from pathlib import Path

import pandas as pd
import pytest

from coinml.runtime.escaping import Markdown, csv_of_rows, markdown_text, printable, write_csv
from coinml.runtime.markdown import markdown_table
from coinml_cli import console
from coinml_ops.environment import log_to

ESCAPES = [
    ("\x1b[31mred", r"\x1b[31mred"),
    ("\x1b]8;;http://x\x07link", r"\x1b]8;;http://x\x07link"),
    ("two\nlines", r"two\nlines"),
    ("back\b\r", r"back\x08\r"),
    ("c1\x9b31m", r"c1\x9b31m"),
    ("turned \u202egpj.exe", r"turned \u202egpj.exe"),
    ("isolated \u2066x\u2069", r"isolated \u2066x\u2069"),
    ("caf\udce9", r"caf\udce9"),
    ("line\u2028end", r"line\u2028end"),
]
UNTOUCHED = [
    "BoilEgg",
    "煮鸡蛋",
    "Нарезать лук 🧅",
    "क्\u200dष",
    "a\\b [x](y) <b> $1",
    "שלום\u200f!",
]


@pytest.mark.parametrize(("text", "shown"), [*ESCAPES, *((text, text) for text in UNTOUCHED)])
def test_terminals_get_no_control_characters(
    text: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert printable(text) == shown
    for name in ("_out", "_err"):
        # A console of this test: the cached ones write to another test's streams.
        monkeypatch.setattr(console, name, getattr(console, name).__wrapped__)
    console.table(["class"], [[text.replace("\n", " ")]], title=text)
    console.heading(text)
    console.line(text)
    console.note(text)
    captured = capsys.readouterr()
    for output in (captured.out, captured.err):
        assert shown.replace(r"\n", "\n").splitlines()[0] in output
        assert output == printable(output, keep="\n")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("text", "shown"), ESCAPES)
def test_the_log_file_gets_no_control_characters(tmp_path: Path, text: str, shown: str) -> None:
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        path = log_to(tmp_path)
        logging.getLogger("coinml.test").warning("class %s", text)
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
    written = path.read_text(encoding="utf-8")
    assert shown.replace(r"\n", "\n") in written
    assert written == printable(written, keep="\n\t")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("`code`", r"\`code\`"),
        ("[here](http://x)", r"[here\](http://x)"),
        ("![i](http://x)", r"![i\](http://x)"),
        ("<img src=x>", r"\<img src=x\>"),
        ("&lt;b&gt;", r"\&lt;b\&gt;"),
        ("**bold** _it_ ~~no~~", r"\*\*bold\*\* \_it\_ \~\~no\~\~"),
        ("ends with \\", "ends with \\\\"),
        ("two\nlines\u2028and more", "two lines and more"),
        ("\x1b[31m", r"\\x1b[31m"),
        ("0.98 [0.95, 1.00]", "0.98 [0.95, 1.00]"),
        ("煮鸡蛋 & Co", "煮鸡蛋 & Co"),
    ],
)
def test_markdown_gets_no_markup(text: str, shown: str) -> None:
    assert markdown_text(text) == shown
    table = markdown_table(("class", "link"), [(text, Markdown("[run](http://localhost)"))])
    assert table.splitlines()[2] == f"| {shown} | [run](http://localhost) |"
    assert len(table.splitlines()) == 3


@pytest.mark.parametrize("text", ["=1+1", "+1", "-abcdefghij", "@SUM(A1)", "\t=1", "\r=1"])
def test_csv_gets_no_formula(text: str, tmp_path: Path) -> None:
    cell = "'" + text.replace("\r", "\n")
    table = pd.DataFrame({"class": [text, "plain"], "difference": [-1, 2], text: [True, False]})
    table["split"] = pd.Categorical([text, "x"])
    write_csv(table, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["class", "difference", cell, "split"],
        [cell, "-1", "True", cell],
        ["plain", "2", "False", "x"],
    ]
    assert list(table["class"]) == [text, "plain"]
    assert next(csv.reader(io.StringIO(csv_of_rows([[text, -1]]), newline=""))) == [cell, "-1"]


def test_ids_stay_as_they_are_so_that_tables_can_be_joined(tmp_path: Path) -> None:
    ids = ["-1x_aBcDeFg", "-2+3", "fall/-a"]
    write_csv(pd.DataFrame({"video_id": ids, "label": ids}), tmp_path / "table.csv")
    read = pd.read_csv(tmp_path / "table.csv")
    assert list(read["video_id"]) == ["-1x_aBcDeFg", "'-2+3", "fall/-a"]
    assert list(read["label"]) == ["'-1x_aBcDeFg", "'-2+3", "fall/-a"]


def test_all_csv_is_written_by_this_module() -> None:
    top = Path(__file__).parents[3]
    writers = set()
    for package in ("coinml", "coinml_cli", "coinml_ops", "tasks", "flows"):
        for path in (top / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            called = {
                ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)
            }
            if any(
                name in ("csv.writer", "csv.DictWriter") or name.endswith(".to_csv")
                for name in called
            ):
                writers.add(path.relative_to(top).as_posix())
    assert writers == {"coinml/runtime/escaping.py"}
