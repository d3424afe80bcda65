"""Draw the picture and the table of the rooms in docs/architecture.md from the imports.

    python docs/draw_rooms.py

Imports inside functions count, and those under TYPE_CHECKING do not.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_name("architecture.md")
BEGIN, END = "<!-- drawn by docs/draw_rooms.py -->\n", "<!-- end of what is drawn -->\n"
PACKAGES = ("coinml", "coinml_cli", "coinml_ops", "flows", "tasks")


def room_of(module: str) -> str:
    """The room of a module: a part of `coinml`, or one of the packages above it."""
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "coinml" else 1])


def find_imports() -> dict[str, set[str]]:
    """The rooms that each room imports."""
    graph = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True, cache_dir=None)
    # `coinml` itself is the front door, which leads to every room.
    rooms = {room_of(module) for module in graph.modules} - {"coinml"}
    imports: dict[str, set[str]] = {room: set() for room in sorted(rooms)}
    for module in graph.modules:
        room = room_of(module)
        if room in rooms:
            found = graph.find_modules_directly_imported_by(module)
            imports[room] |= ({room_of(other) for other in found} & rooms) - {room}
    return imports


def reachable(imports: Mapping[str, set[str]], start: str) -> set[str]:
    """The rooms that a room imports directly or through others."""
    found: set[str] = set()
    waiting = list(imports[start])
    while waiting:
        room = waiting.pop()
        if room not in found:
            found.add(room)
            waiting += imports[room]
    return found


def reduced(imports: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """The imports without those that a longer way implies (transitive reduction).

    Raises:
        ValueError: Rooms import one another in a circle.
    """
    below = {room: reachable(imports, room) for room in imports}
    circles = [room for room in imports if room in below[room]]
    if circles:
        raise ValueError(f"rooms that import one another: {', '.join(circles)}")
    return {
        room: sorted(other for other in others if not any(other in below[via] for via in others))
        for room, others in imports.items()
    }


def mermaid(imports: Mapping[str, set[str]]) -> str:
    """The picture: an arrow leads from a room to one that it imports."""
    lines = ["flowchart TD"]
    lines += [f"  {room}" for room in imports if "." not in room]
    lines.append("  subgraph coinml")
    lines += [f"    {_node(room)}[{_short(room)}]" for room in imports if "." in room]
    lines.append("  end")
    for room, others in reduced(imports).items():
        lines += [f"  {_node(room)} --> {_node(other)}" for other in others]
    return "\n".join(lines)


def table(imports: Mapping[str, set[str]]) -> str:
    """A row a room: what is in it, by the first line of its docstring, and all that it imports."""
    rows = ["| room | what is in it | imports |", "| --- | --- | --- |"]
    for room, others in sorted(imports.items(), key=lambda item: ("." in item[0], item[0])):
        shown = ", ".join(_short(other) for other in sorted(others)) or "nothing"
        rows.append(f"| `{_path(room)}` | {_first_line(room)} | {shown} |")
    return "\n".join(rows)


def drawn() -> str:
    """The text between the two marks of the page: the picture and the table."""
    imports = find_imports()
    return f"\n```mermaid\n{mermaid(imports)}\n```\n\n{table(imports)}\n\n"


def page_with(page: str, drawing: str) -> str:
    """The page with another drawing between its marks."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + drawing + END + after


def _node(room: str) -> str:
    # Mermaid reserves words such as `end` and `style`, and a dot ends a name.
    return room.replace(".", "_")


def _short(room: str) -> str:
    return room.removeprefix("coinml.")


def _path(room: str) -> str:
    path = room.replace(".", "/")
    return f"{path}/" if (ROOT / path).is_dir() else f"{path}.py"


def _first_line(room: str) -> str:
    path = ROOT / _path(room)
    source = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0].replace("|", "\\|")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), drawn()), encoding="utf-8")
