"""docs/architecture.md shows the rooms, the functions and the files that there are."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
IN_THE_WHEEL_ONLY = {"coinml_ops/project/"}
STEPS = re.findall(r"^\| \d+b? \| `(\S+)` \| `(\w+)` \|", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def draw_rooms() -> ModuleType:
    path = ROOT / "docs" / "draw_rooms.py"
    spec = importlib.util.spec_from_file_location("draw_rooms", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_rooms_is_current(draw_rooms: ModuleType) -> None:
    current = draw_rooms.page_with(PAGE, draw_rooms.drawn())
    assert current == PAGE, "run: python docs/draw_rooms.py"


def test_the_picture_leaves_out_only_what_it_implies(draw_rooms: ModuleType) -> None:
    imports = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
    reduced = draw_rooms.reduced(imports)
    assert reduced == {"a": ["b"], "b": ["c"], "c": ["d"], "d": []}
    found = draw_rooms.find_imports()
    assert len(found) > 20
    kept = {room: set(others) for room, others in draw_rooms.reduced(found).items()}
    for room in found:
        assert draw_rooms.reachable(kept, room) == draw_rooms.reachable(found, room)


def test_rooms_that_import_one_another_are_refused(draw_rooms: ModuleType) -> None:
    with pytest.raises(ValueError, match="import one another: a, b"):
        draw_rooms.reduced({"a": {"b"}, "b": {"a", "c"}, "c": set()})


def test_every_step_of_a_video_names_a_function_of_its_file() -> None:
    assert len(STEPS) > 15
    for file, function in STEPS:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function in defined, f"{file} has no {function}"


def test_every_file_that_the_page_names_exists() -> None:
    named = {
        text
        for text in re.findall(r"`([\w./-]+)`", PAGE)
        if "/" in text or text.endswith((".py", ".md", ".yaml", ".toml"))
    }
    assert len(named) > 60
    # `NAME` is the reader's own.
    named = {text for text in named - IN_THE_WHEEL_ONLY if "NAME" not in text}
    assert [text for text in sorted(named) if not (ROOT / text).exists()] == []


@pytest.mark.parametrize(
    "what", ["head", "encoder", "study", "fault rule", "deployment", "command"]
)
def test_there_is_a_recipe(what: str) -> None:
    article = "an" if what[0] in "aeiou" else "a"
    assert f"### Add {article} {what}\n" in PAGE
