"""`coinml collect` and `import`: download videos, or adopt existing files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli.model_options import Only, add_command
from coinml_cli.options import Json

if TYPE_CHECKING:
    from coinml.collection.options import CollectOptions
    from coinml.selection import Selection


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    add_command(
        app,
        collect,
        epilog="Example: coinml collect --dataset COIN.json --budget 250 --only pending,transient",
    )
    add_command(
        app,
        import_files,
        name="import",
        epilog="Example: coinml import ~/coin-videos --dataset COIN.json",
    )


def collect(selection: Selection, options: CollectOptions, json: Json = False) -> None:
    """Download the videos that are due; a second call continues where the first one ended."""
    from coinml.collection.sources import check_folders
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_cli.flow_session import flow_session, load_shown
    from coinml_cli.status import print_status

    settings = Settings()
    check_folders(options.sources)
    load_shown(selection, settings)
    with flow_session(settings):
        from flows.collect import collect as flow

        report = flow(selection, options)
    if json:
        print_json(report.as_dict())
    else:
        print_status(settings, report.dataset)
        line(str(report))
    raise typer.Exit(0 if report.complete else 3)


def import_files(
    folder: Annotated[Path, typer.Argument(help="Folder of video files, each named by its id.")],
    selection: Annotated[Selection, Only("dataset", "name")],
    json: Json = False,
) -> None:
    """Adopt existing video files, after decoding each."""
    from dataclasses import asdict

    from coinml.collection.adopt import adopt_folder
    from coinml.ledger import Ledger
    from coinml.runtime import progress
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, note, print_json, table
    from coinml_cli.flow_session import show_notes, watched

    settings = Settings()
    loaded = selection.load(settings.data_dir)
    show_notes(loaded)
    with Ledger.of(settings) as ledger, watched(), progress.stage("import"):
        ledger.register(loaded)
        report = adopt_folder(
            ledger,
            loaded.name,
            folder,
            videos_dir=settings.videos_dir(loaded.name),
            progress=lambda _done, total: progress.advance("import", total=total),
        )
    if json:
        print_json(asdict(report))
        return
    line(
        f"{len(report.adopted)} adopted, {len(report.already)} were in the ledger before, "
        f"{len(report.failed)} cannot be used, "
        f"{len(report.unknown)} are not in {loaded.name}"
    )
    for text in report.notes:
        note(text)
    if report.failed:
        table(["id", "why it was not adopted"], sorted(report.failed.items()))
