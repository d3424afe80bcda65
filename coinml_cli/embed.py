"""`coinml embed`: from downloaded videos to vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli.model_options import Only, add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.embedding.options import EmbedOptions
    from coinml.embedding_sets.options import SetOptions
    from coinml.selection import Selection


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(
        app, embed, epilog="Example: coinml embed --dataset COIN.json --encoder ./videomae-base"
    )


def embed(
    selection: Selection,
    set_options: SetOptions,
    options: Annotated[
        EmbedOptions, Only("decoder", "kernel", "deadline_s", "runner", "address", "devices")
    ],
    json: Json = False,
) -> None:
    """Embed the downloaded videos that are not yet in the embedding set."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import flow_session, load_shown
    from coinml_cli.result_tables import print_embedded

    settings = Settings()
    load_shown(selection, settings)
    with flow_session(settings):
        from flows.embed import embed as flow

        summary = flow(selection, set_options, options)
    if json:
        print_json(summary.as_dict())
    else:
        print_embedded(summary)
