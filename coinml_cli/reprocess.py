"""`coinml reprocess`: bring a dataset up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli.model_options import Only, add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.collection.options import CollectOptions
    from coinml.embedding.options import EmbedOptions
    from coinml.embedding_sets.options import SetOptions
    from coinml.selection import Selection
    from coinml.training.options import TrainOptions


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(
        app,
        reprocess,
        epilog="Example: coinml reprocess --dataset COIN.json --budget 280 --min-new 500",
    )


def reprocess(
    selection: Selection,
    collection: Annotated[
        CollectOptions,
        Only(
            "source",
            "budget",
            "batch_size",
            "max_wait_s",
            "max_height",
            "max_mb_per_s",
            "max_minutes",
        ),
    ],
    set_options: SetOptions,
    embedding: Annotated[EmbedOptions, Only("decoder", "kernel")],
    training: Annotated[
        TrainOptions,
        Only("heads", "head_options", "target", "cv", "seed", "drop_leaks", "by_reference"),
    ],
    deep: Annotated[
        bool, typer.Option("--deep", help="Read every file, whatever its modification time.")
    ] = False,
    min_new: Annotated[
        int, typer.Option(min=1, help="Train again when the set has this many new videos.")
    ] = 50,
    json: Json = False,
) -> None:
    """Download what is due, check files for changes, embed new videos, retrain on growth."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_cli.flow_session import flow_session, load_shown
    from coinml_cli.result_tables import print_heads, print_verdicts

    settings = Settings()
    # Contradictory options are refused before a server is started.
    set_options = set_options.for_target(training.target_for(set_options))
    load_shown(selection, settings)
    with flow_session(settings):
        from flows.reprocess import reprocess as flow

        summary = flow(selection, collection, set_options, embedding, training, deep, min_new)
    if json:
        print_json(summary.as_dict())
    else:
        line(str(summary))
        if summary.trained is not None:
            print_heads(summary.trained)
            print_verdicts(summary.verdicts)
    raise typer.Exit(0 if summary.complete else 3)
