"""`coinml move-dataset`: say that a dataset is in another place now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli.model_options import Only, add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.selection import Selection


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(
        app,
        move_dataset,
        name="move-dataset",
        epilog="Example: coinml move-dataset --dataset folder:/new/place/clips",
    )


def move_dataset(
    selection: Annotated[Selection, Only("dataset", "name", "group", "split_seed")],
    json: Json = False,
) -> None:
    """Say that a dataset is in another folder or file now; `collect` then verifies its files."""
    from coinml.errors import InvalidInputError
    from coinml.ledger import Ledger
    from coinml.ledger.origins import origin_of
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_cli.flow_session import show_notes

    settings = Settings()
    dataset = selection.load(settings.data_dir)
    show_notes(dataset)
    with Ledger.of(settings) as ledger:
        if dataset.name not in ledger.datasets():
            listed = ", ".join(ledger.datasets()) or "none yet"
            raise InvalidInputError(
                f"the ledger has no dataset {dataset.name!r} that could have moved (it has: "
                f"{listed}); name it with --name"
            )
        before, now = ledger.origin(dataset.name), origin_of(dataset)
        kept = ledger.move(dataset)
    if json:
        print_json({"dataset": dataset.name, "before": before, "now": now, "kept": kept})
        return
    line(f"{dataset.name} was {before or 'in an unknown place'} and is {now}")
    line(f"{kept:,} of its {len(dataset.videos):,} videos were known; `coinml collect` comes next")
