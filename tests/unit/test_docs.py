"""The documents agree with the code: commands, options, settings, targets, links, layout."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from coinml.faults.classification import Fault
from coinml.runtime.settings import Settings
from coinml_cli.app import app

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
GUIDES = {
    f"docs/{path.name}": path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "docs").glob("*.md"))
}
DOCUMENTS = {
    "README.md": README,
    "CHANGELOG.md": CHANGELOG,
    "CONTRIBUTING.md": CONTRIBUTING,
    **GUIDES,
}


def commands_of(group: Any, before: str = "") -> dict[str, Any]:
    """Every command by its name; a subcommand's name begins with its group's."""
    found = {}
    for name, command in group.commands.items():
        found[before + name] = command
        if hasattr(command, "commands"):
            found |= commands_of(command, f"{before}{name} ")
    return found


# Typer has its own copy of click, whose types are private.
COMMANDS = commands_of(typer.main.get_command(app))
TARGETS = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
OTHER_VARIABLES = {
    "COINML_FAIL_WITHOUT_CUDA",
    "COINML_FORBID_SKIPS",
    "COINML_SCREENSHOTS",
    "COINML_POSTGRES",
    "COINML_SERVE_MAX_MB",
    "COINML_SERVER_PASSWORD",
    "COINML_SERVE_MAX_ROWS",
    "COINML_SERVE_MAX_S",
    "COINML_SERVE_MAX_TOTAL_MB",
    "COINML_SERVE_PARALLEL",
    "COINML_SERVE_ROOT",
    "COINML_SHARED_DATA",
}
CALL = re.compile(r"(?:^\s*|&& )(?:until |[A-Z_]+=\S+ )*(?:\.venv/bin/)?coinml ([a-z-][^#|;&]*)")


def code_of(document: str) -> list[str]:
    """Lines of fenced blocks, and the text between backticks elsewhere."""
    blocks = re.findall(r"^ *```[a-z]*\n(.*?)^ *```", document, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```", "", document, flags=re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()] + re.findall(
        r"`([^`]+)`", prose
    )


def calls_of(text: str) -> list[tuple[str, list[str]]]:
    """Every call of `coinml` in a line of code, with its arguments."""
    found = []
    for call in re.findall(CALL, text):
        command, *arguments = shlex.split(call.replace("...", ""))
        while arguments and f"{command} {arguments[0]}" in COMMANDS:
            command += f" {arguments.pop(0)}"
        found.append((command, arguments))
    return found


def options_of(command: str) -> set[str]:
    return {option for parameter in COMMANDS[command].params for option in parameter.opts} | {
        "--help"
    }


def section(document: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", document, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section {heading!r}"
    return found[1]


def tree_of(text: str) -> Iterator[str]:
    """The paths in a drawn tree; a level is indented by two spaces."""
    folders: list[str] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        name = line.split()[0]
        level = (len(line) - len(line.lstrip())) // 2
        del folders[level:]
        yield "".join([*folders, name])
        if name.endswith("/"):
            folders.append(name)


def test_calls_and_trees_are_parsed() -> None:
    document = "Say `coinml run`.\n\n```\n. x && .venv/bin/coinml embed --clips 2  # why\n```\n"
    found = [call for line in code_of(document) for call in calls_of(line)]
    assert found == [("embed", ["--clips", "2"]), ("run", [])]
    assert calls_of("coinml embeddings show 3f2a") == [("embeddings show", ["3f2a"])]
    assert list(tree_of("a/  x\n  b/\n    c.py  y\n  d.py\ne")) == [
        "a/",
        "a/b/",
        "a/b/c.py",
        "a/d.py",
        "e",
    ]
    assert len(COMMANDS) >= 15
    assert len(TARGETS) >= 7


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_lists_the_command(command: str) -> None:
    assert f"| `coinml {command}` |" in section(README, "Commands")


@pytest.mark.parametrize("target", TARGETS)
def test_the_readme_lists_the_make_target(target: str) -> None:
    assert f"| `make {target}` |" in section(README, "Commands")


def test_make_help_names_every_target() -> None:
    echoed = "".join(re.findall(r'@echo "(.*)"', (ROOT / "Makefile").read_text()))
    missing = [name for name in TARGETS if name != "help" and f"make {name}" not in echoed]
    assert missing in ([], ["format"])


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_readme_lists_the_setting_with_its_default(name: str) -> None:
    variable = f"COINML_{name.upper()}"
    row = re.search(rf"^\| `{variable}` \| (.*?) \|", section(README, "Settings"), re.MULTILINE)
    assert row is not None, f"{variable} is not in the table"
    default = Settings.model_fields[name].default
    if default is None:
        assert row[1] == "none"
    elif isinstance(default, str | int | float) and default != "":
        assert row[1].strip("`") == str(default)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_variable_in_the_document_exists(document: str) -> None:
    settings = {f"COINML_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"COINML_[A-Z]+(?:_[A-Z]+)*", DOCUMENTS[document])) <= (
        settings | OTHER_VARIABLES
    )


def test_the_guide_explains_every_state_of_a_video() -> None:
    states = section(GUIDES["docs/getting-coin.md"], "The states of a video")
    unsaid = [fault for fault in Fault if f"`{fault}`" not in states]
    assert unsaid == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_call_in_the_document_is_valid(document: str) -> None:
    calls = [call for line in code_of(DOCUMENTS[document]) for call in calls_of(line)]
    calls = [call for call in calls if call[0] != "--help"]
    assert calls or document in ("CONTRIBUTING.md", "docs/reading-the-numbers.md")
    unknown = {command for command, _ in calls} - set(COMMANDS)
    assert not unknown
    for command, arguments in calls:
        if COMMANDS[command].context_settings.get("ignore_unknown_options"):
            # The arguments are those of Prefect's or MLflow's command.
            continue
        options = {argument for argument in arguments if re.match(r"--?[a-z]", argument)}
        assert options <= options_of(command), f"coinml {command} {arguments}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_in_the_document_exists(document: str) -> None:
    known = {option for command in COMMANDS for option in options_of(command)}
    trainer = (ROOT / "coinml" / "miniature" / "pretrain.py").read_text()
    known |= set(re.findall(r'add_argument\("(--[a-z-]+)"', trainer))
    single = {text for text in code_of(DOCUMENTS[document]) if re.match(r"--[a-z]", text)}
    assert {text.split()[0] for text in single} <= known


def test_the_changelog_names_commands_that_exist() -> None:
    listed = re.search(r"command for each stage:(.*?)\.\n", CHANGELOG, re.DOTALL)
    assert listed is not None
    named = set(re.findall(r"`([a-z]+)`", listed[1]))
    assert named
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_target_in_the_document_exists(document: str) -> None:
    named = {
        words[1]
        for text in code_of(DOCUMENTS[document])
        for words in [text.split()]
        if len(words) > 1 and words[0] == "make"
    }
    assert named <= set(TARGETS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_module_that_the_document_runs_exists(document: str) -> None:
    for module in re.findall(r"python -m ((?:coinml|flows|tasks)[\w.]*)", DOCUMENTS[document]):
        assert importlib.util.find_spec(module) is not None, module


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_has_a_valid_example(command: str) -> None:
    epilog = COMMANDS[command].epilog or ""
    assert epilog.startswith("Example: ")
    ((named, arguments),) = calls_of(epilog.removeprefix("Example: "))
    assert named == command
    options = {argument for argument in arguments if re.match(r"--?[a-z]", argument)}
    assert options <= options_of(command)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_linked_file_and_heading_exists(document: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)", DOCUMENTS[document])
    here = ROOT / document
    dead = []
    for link in links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (here.parent / name).resolve() if name else here
        known = anchors_of(target) if target.suffix == ".md" and target.exists() else set()
        if not target.exists() or (anchor and anchor not in known):
            dead.append(link)
    assert dead == []


def anchors_of(document: Path) -> set[str]:
    """The anchors of a document's headings: what a link may have behind the `#`."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }


def test_the_readme_links_to_every_guide() -> None:
    assert [name for name in GUIDES if f"]({name})" not in README] == []


def test_every_path_of_the_layout_exists() -> None:
    (block,) = re.findall(r"```\n(.*?)```", section(README, "Layout"), re.DOTALL)
    paths = list(tree_of(block))
    assert len(paths) > 20
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_layout_names_every_folder_of_code() -> None:
    (block,) = re.findall(r"```\n(.*?)```", section(README, "Layout"), re.DOTALL)
    drawn = set(tree_of(block))
    rooms = {f"{path.parent.relative_to(ROOT)}/" for path in ROOT.glob("coinml/*/__init__.py")}
    packages = {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")}
    assert len(rooms) > 15
    assert len(packages) > 3
    assert (rooms | packages) - drawn == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_placeholder_is_left(document: str) -> None:
    assert re.findall(r"<<\w+>>", DOCUMENTS[document]) == []
