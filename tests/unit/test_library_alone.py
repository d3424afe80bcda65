"""The library names neither Prefect nor the packages that use it, in strings and comments too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABOVE = {
    f"{package}.{path.stem}"
    for package in ("flows", "tasks")
    for path in (ROOT / package).glob("[a-z]*.py")
}
NAMED = re.compile(
    r"(?i:prefect)|coinml_cli|coinml_ops|\b(?:flows|tasks)/|(?:from|import) (?:flows|tasks)\b"
    # `coinml.miniature.tasks` and an attribute `x.tasks.y` are other names.
    rf"|(?<![.\w])(?:{'|'.join(sorted(map(re.escape, ABOVE)))})\b"
)


def sentences(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        if NAMED.search(line):
            yield f"{number}: {line.strip()}"


def test_the_library_names_nothing_above_it() -> None:
    files = [
        path
        for path in sorted((ROOT / "coinml").rglob("*"))
        if path.suffix in {".py", ".md", ".html", ".json", ".ini", ".mako"}
    ]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in files for line in sentences(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "caught"),
    [
        ("# Prefect makes a form of it.", True),
        ('run("python", "-m", "coinml_ops.stack")', True),
        ("entrypoint = 'flows/collect.py:collect'", True),
        ("from tasks import policies", True),
        ("# as tasks.policies says", True),
        ("from coinml.miniature.tasks import TASKS", False),
        ("task = worker.state.tasks.get(key)", False),
        ("tasks.setdefault(step_id, []).append(task)", False),
    ],
)
def test_a_name_from_above_is_caught(line: str, caught: bool) -> None:
    assert bool(list(sentences(line))) is caught
