"""`coinml gc`: remove what this home needs no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options
from coinml_cli.model_options import add_command

if TYPE_CHECKING:
    from coinml.upkeep.gc_options import GcOptions


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(app, gc, epilog="Example: coinml gc --keep 20 --delete")


def gc(
    keeping: GcOptions,
    delete: Annotated[
        bool, typer.Option("--delete", help="Remove what is listed; without, it is only listed.")
    ] = False,
    json: options.Json = False,
) -> None:
    """List, or remove, old runs and versions, what they left on the disk, and long logs."""
    from dataclasses import asdict

    from coinml.tracking.mlflow_store import home_store
    from coinml.upkeep.gc import collect_garbage
    from coinml_cli.console import line, note, print_json, table

    settings = options.home_in_place()
    report = collect_garbage(settings, home_store(settings), keeping, delete=delete)
    if json:
        print_json({**asdict(report), "size_bytes": report.size_bytes})
        return
    if report.items:
        table(
            ["kind", "number", "MB"],
            [
                [kind, number, f"{size_bytes / 1e6:,.1f}"]
                for kind, (number, size_bytes) in report.counts().items()
            ],
        )
    line(str(report))
    if report.left_to_mlflow:
        note(f"{report.left_to_mlflow} runs are deleted in MLflow; `mlflow gc` removes their rows")
    if report.items and not delete:
        note("nothing was removed; --json lists each, --delete removes them")
