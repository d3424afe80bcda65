"""`coinml move-ledger`: copy the ledger to another database."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from coinml_cli import options


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: COINML_POSTGRES=postgresql://me@db:5432 coinml move-ledger")(
        move_ledger
    )


def move_ledger(
    to: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The new ledger, which has no rows: postgresql://USER@HOST/DATABASE or "
            "sqlite:////PATH/ledger.db. By default the one that `up --postgres` uses on the server "
            "COINML_POSTGRES; it is created if missing.",
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Copy the ledger, with attempts and back-off times, to PostgreSQL; the original stays."""
    from dataclasses import asdict

    from coinml.errors import InvalidInputError
    from coinml.ledger.copy_ledger import copy_ledger
    from coinml.runtime.addresses import masked
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, note, print_json
    from coinml_ops.deployments.edits_in_file import edits_in
    from coinml_ops.home_databases import PREFECT, databases
    from coinml_ops.stack.postgres import Databases, checked
    from coinml_ops.upkeep.unused_home import check_unused

    settings = Settings()
    check_unused(settings)
    if to is None:
        server = os.environ.get("COINML_POSTGRES")
        if not server:
            raise InvalidInputError("give --to, or the server in COINML_POSTGRES")
        Databases(checked(server)).create()
        to = Databases(server).ledger
    copied = copy_ledger(settings.ledger_url, to)
    edits = edits_in(databases(settings.home)[PREFECT])
    if json:
        print_json({**asdict(copied), "edits": edits})
        return
    line(", ".join(f"{count:,} {name}" for name, count in copied.rows.items()) + " copied")
    for text in copied.changed:
        note(f"changed, since the new database cannot hold it: {text}")
    if edits:
        note("Prefect's own database is not moved; set again what was edited there:")
    for text in edits:
        note(f"  {text}")
    line(f"use it:  COINML_LEDGER_URL={masked(to)}, or `coinml up --postgres SERVER`")
