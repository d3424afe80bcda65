"""Options of commands that are made from models."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel, ConfigDict, Field
from typer.testing import CliRunner

from coinml.collection.options import CollectOptions
from coinml.embedding.options import EmbedOptions
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.selection import Selection
from coinml.training.options import TrainOptions
from coinml_cli import model_options
from coinml_cli.app import app
from coinml_cli.model_options import MODELS, add_command, build

ROOT = Path(__file__).resolve().parents[3]
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands


class Soup(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", title="Cooking")

    salt_g: float = Field(default=2, ge=0, le=9, description="Grams of salt.")
    plates: int | None = Field(default=None, ge=1, description="Number of plates.")
    herbs: tuple[str, ...] = Field(default=("dill", "chives"), description="What is cut into it.")
    hot: bool = Field(default=False, description="Serve it hot.")


@pytest.fixture
def cooked() -> Any:
    """Runs a command that takes the model, with some arguments: what it was called with."""
    found: list[Any] = []

    def cook(soup: Soup, cook_name: str = "me") -> None:
        """Cook."""
        found.append((soup, cook_name))

    def run(*arguments: str) -> Any:
        kitchen = typer.Typer()
        add_command(kitchen, cook, epilog="Example")
        kitchen.callback()(lambda: None)
        result = CliRunner().invoke(kitchen, ["cook", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return found.pop() if found else result.output

    return run


def test_a_command_is_called_with_the_model_that_its_options_make(cooked: Any) -> None:
    assert cooked() == (Soup(), "me")
    assert cooked("--salt-g", "3", "--herbs", " parsley,", "--hot", "--cook-name", "you") == (
        Soup(salt_g=3, herbs=("parsley",), hot=True),
        "you",
    )
    text = cooked("--help")
    assert "Cooking" in text
    assert "Grams of salt." in text
    assert "[default: dill,chives]" in text


def test_an_option_for_one_text_or_several_may_be_repeated() -> None:
    found: list[Any] = []

    def fetch(options: CollectOptions) -> None:
        """Fetch."""
        found.append(options)

    kitchen = typer.Typer()
    add_command(kitchen, fetch, epilog="Example")
    kitchen.callback()(lambda: None)
    one, two = "https://tube.example/{id}", "/copies/a,b/{id}.mp4"
    for arguments in ([], ["--source", one], ["--source", one, "--source", two]):
        done = CliRunner().invoke(kitchen, ["fetch", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    assert [options.source for options in found] == [None, one, (one, two)]
    with pytest.raises(InvalidInputError, match="contains a user name") as caught:
        build(CollectOptions, {"source": ["https://joe:hush@tube.example/{id}"]})
    assert "hush" not in str(caught.value)


def test_a_value_that_is_not_allowed_is_named_by_its_option() -> None:
    with pytest.raises(InvalidInputError, match=r"--salt-g 12: .* less than or equal to 9"):
        build(Soup, {"salt_g": 12})
    with pytest.raises(InvalidInputError, match=r"--snap foo: .*'exact' or 'keyframe'"):
        build(SetOptions, {"snap": "foo"})
    with pytest.raises(InvalidInputError, match=r"^heads forest: allowed are mlp, svm"):
        build(TrainOptions, {"heads": "forest"})
    with pytest.raises(InvalidInputError, match=r"^--address x is for --runner dask"):
        build(EmbedOptions, {"address": "x"})
    with pytest.raises(InvalidInputError, match=r"kernel 'mkl' is unknown; known: auto, torch-"):
        build(EmbedOptions, {"kernel": "mkl"})
    assert build(EmbedOptions, {"kernel": "onednn-float32"}).kernel == "onednn-float32"


@pytest.mark.parametrize(
    ("command", "models"),
    [
        ("collect", [Selection, CollectOptions]),
        ("embed", [Selection, SetOptions]),
        ("train", [Selection, SetOptions, TrainOptions]),
        ("reprocess", [Selection, SetOptions]),
    ],
)
def test_the_help_of_an_option_is_the_description_of_its_field(
    command: str, models: list[type[BaseModel]]
) -> None:
    helps = {parameter.name: parameter.help for parameter in COMMANDS[command].params}
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    assert len(fields) >= 5
    assert {name: helps[name] for name in fields} == {
        name: field.description for name, field in fields.items()
    }


def test_every_model_that_commands_may_name_exists() -> None:
    for name, module in MODELS.items():
        model = getattr(import_module(module), name)
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
        assert all(field.description for field in model.model_fields.values())
    fields = {
        field
        for name, module in MODELS.items()
        for field in getattr(import_module(module), name).model_fields
    }
    assert set(model_options.SPELLINGS) | set(model_options.METAVARS) <= fields


def test_the_list_of_commands_is_shown_without_the_models() -> None:
    code = (
        "import sys; from coinml_cli.app import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "print('pydantic' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "collect" in run.stdout
    assert run.stdout.endswith("False\n")
