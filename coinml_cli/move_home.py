"""`coinml move-home`: go on with a home that is in another folder now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coinml_cli import options


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: COINML_HOME=/new/place coinml move-home --dry-run")(move_home)


def move_home(
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="DIR", help="Where it was; by default as its databases say."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would change.")] = False,
    json: options.Json = False,
) -> None:
    """Change the paths of this home, which was renamed, copied, or mounted elsewhere."""
    from dataclasses import asdict

    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json, table
    from coinml_ops.upkeep.move_home import move_home as move

    moved_from = None if from_ is None else Path(from_.expanduser().absolute())
    moved = move(Settings(), moved_from=moved_from, dry_run=dry_run)
    if json:
        print_json({**asdict(moved), "dry_run": dry_run})
        return
    if not moved.moved_from:
        line(f"{moved.home} is where its databases say: nothing to change")
        return
    if moved.changed:
        table(["in", "paths"], [[name, f"{count:,}"] for name, count in moved.changed.items()])
    count = sum(moved.changed.values())
    line(
        f"{moved.home} was at {' and '.join(moved.moved_from)}: {count:,} paths "
        f"{'would be changed; nothing was' if dry_run else 'were changed'}"
    )
