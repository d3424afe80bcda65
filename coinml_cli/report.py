"""`coinml report`: one page that shows where a dataset, its heads and its embeddings stand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coinml_cli import options


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml report --dataset mini --out report.html")(report)


def report(
    dataset: options.Dataset = "mini",
    name: options.Name = None,
    classes: options.Classes = None,
    limit: options.Limit = None,
    group: options.Group = None,
    target: options.Target = "task",
    out: Annotated[
        Path | None, typer.Option(help="The file; by default `report-<dataset>-<target>.html`.")
    ] = None,
    projections: Annotated[
        str,
        typer.Option(metavar="A,B", help="Maps to draw, of `pca`, `lda` and `tsne`; first first."),
    ] = "tsne,pca,lda",
    source: options.Source = None,
    json: options.Json = False,
) -> None:
    """Write one HTML page: coverage, curves, comparison, confusion, map, neighbours, lineage."""
    from coinml.ledger import Ledger
    from coinml.report import write_report
    from coinml.report.gathering import gather
    from coinml.runtime import progress
    from coinml.runtime.settings import YOUTUBE, Settings
    from coinml.tracking.mlflow_store import MlflowStore
    from coinml_cli.console import line, print_json
    from coinml_cli.session import load_shown, watched
    from coinml_ops.environment import log_to

    settings = Settings()
    log_to(settings.logs_dir)
    chosen = options.selection(dataset, name, classes, limit, group)
    with watched(), Ledger(settings.ledger_url) as ledger:
        loaded = load_shown(chosen, settings)
        with progress.stage("report"):
            data = gather(
                loaded,
                store=MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root),
                ledger=ledger,
                embeddings_root=settings.embeddings_root,
                target=options.target(target),
                # Drawn videos and folder datasets exist only as local files.
                source=source or (None if chosen.is_mini or chosen.is_folder else YOUTUBE),
            )
            path = write_report(
                data,
                out or Path(f"report-{loaded.name}-{target}.html"),
                projections=options.listed(projections),
                tick=lambda: progress.advance("report"),
            )
    if json:
        print_json({"path": str(path.resolve()), "missing": list(data.missing)})
    else:
        line(str(path))
        for missing in data.missing:
            line(missing)
