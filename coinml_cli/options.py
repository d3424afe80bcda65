"""The options that several commands share and no model has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from coinml.data.records import Target as Target_
    from coinml.runtime.settings import Settings

Known = Annotated[
    str | None,
    typer.Option("--dataset", help="Dataset name; not needed if there is only one."),
]
Target = Annotated[str, typer.Option(help="Predicted classes: `task`, `domain` or `step`.")]
ModelUri = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="URI",
        help="Such as `models:/mini-task/3`; by default the champion.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]


def home_in_place() -> Settings:
    """This machine's settings, for a command that reads or changes what MLflow's paths lead to.

    Raises:
        InvalidInputError: The home was moved, and its databases still name the place before.
    """
    from coinml.runtime.settings import Settings
    from coinml_ops.upkeep.moved_home import check_place

    settings = Settings()
    check_place(settings)
    return settings


def known_dataset(settings: Settings, name: str | None) -> str:
    """The dataset with this name in the ledger; the only one if none is named.

    Raises:
        InvalidInputError: No such dataset, or several and none is named.
    """
    from coinml.errors import InvalidInputError
    from coinml.ledger import Ledger

    with Ledger.of(settings) as ledger:
        known = ledger.datasets()
    if name in known:
        return str(name)
    listed = ", ".join(known) or "none yet (run `coinml collect` first)"
    if name is not None:
        raise InvalidInputError(f"--dataset {name}: the ledger has {listed}")
    if len(known) != 1:
        raise InvalidInputError(f"name one with --dataset; the ledger has {listed}")
    return known[0]


def target(text: str) -> Target_:
    """The target that an option names.

    Raises:
        InvalidInputError: No such target.
    """
    from coinml.data.targets import TARGETS
    from coinml.errors import InvalidInputError

    for known in TARGETS:
        if text == known:
            return known
    raise InvalidInputError(f"--target {text}: one of {', '.join(TARGETS)} is allowed")
