"""`coinml report`: one HTML page about a dataset, its heads and its embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options
from coinml_cli.model_options import add_command, split

if TYPE_CHECKING:
    from coinml.selection import Selection


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(app, report, epilog="Example: coinml report --dataset mini --out report.html")


def report(
    selection: Selection,
    target: options.Target = "task",
    out: Annotated[
        Path | None, typer.Option(help="The file; by default `report-<dataset>-<target>.html`.")
    ] = None,
    projections: Annotated[
        str,
        typer.Option(
            metavar="A,B", help="Maps to draw, of `pca`, `lda` and `tsne`; the first is shown."
        ),
    ] = "tsne,pca,lda",
    source: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Template with {id} for links to videos; by default YouTube."
        ),
    ] = None,
    thumbnails: Annotated[
        int, typer.Option(min=0, metavar="N", help="Most videos of which the page has pictures.")
    ] = 1000,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Write one HTML page: coverage, every head, its errors with pictures, audit, map, lineage."""
    from coinml.data.targets import examples
    from coinml.ledger import Ledger
    from coinml.report import check_report, write_report
    from coinml.report.gathering import gather
    from coinml.report.strips import with_strips
    from coinml.runtime import progress
    from coinml.runtime.settings import YOUTUBE
    from coinml.tracking.mlflow_store import home_store
    from coinml_cli.console import line, print_json
    from coinml_cli.flow_session import load_shown, watched
    from coinml_ops.environment import log_to

    settings = options.home_in_place()
    log_to(settings.logs_dir)
    wanted = options.target(target)
    maps = split(projections)
    if out is not None:
        check_report(out, projections=maps, replace=force)
    with watched(), Ledger.of(settings) as ledger:
        loaded = load_shown(selection, settings)
        path = out or Path(f"report-{loaded.name}-{wanted}.html")
        check_report(path, projections=maps, replace=force)
        with progress.stage("report"):
            data = gather(
                loaded,
                store=home_store(settings),
                ledger=ledger,
                embeddings_root=settings.embeddings_root,
                target=wanted,
                # Drawn videos and own files have no public page to link to.
                source=source or (None if selection.is_mini or selection.is_folder else YOUTUBE),
            )
        with progress.stage("pictures"):
            data = with_strips(
                data,
                examples(loaded.videos, target=wanted, extent=data.extent),
                most=thumbnails,
                tick=lambda: progress.advance("pictures"),
            )
        with progress.stage("report"):
            write_report(
                data,
                path,
                projections=maps,
                tick=lambda: progress.advance("report"),
                replace=force,
            )
    if json:
        print_json({"path": str(path.resolve()), "missing": list(data.missing)})
    else:
        line(str(path))
        for missing in data.missing:
            line(missing)
