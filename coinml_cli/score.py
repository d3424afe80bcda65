"""`coinml score`: classify what is new in a folder or bucket, and look for drift."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli import options
from coinml_cli.model_options import Only, add_command

if TYPE_CHECKING:
    from coinml.monitoring.options import ScoreOptions
    from coinml.monitoring.run_scoring import ScoreReport

_IN_PART = 3
_SHOWN_FAILURES = 5


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    add_command(app, score, epilog="Example: coinml score new-videos --dataset coin --window 50")


def score(
    scoring: Annotated[ScoreOptions, Only("labels", "settle_s", "window", "looks")],
    folder: Annotated[
        str | None,
        typer.Argument(help="Folder or fsspec URL; by default `data/incoming/DATASET`."),
    ] = None,
    dataset: options.Known = None,
    target: options.Target = "task",
    json: options.Json = False,
) -> None:
    """Classify each new file once with the champion, and compare them with the training set."""
    from coinml.errors import NoModelError
    from coinml.monitoring.run_scoring import run_scoring
    from coinml.runtime.settings import Settings
    from coinml.tracking.mlflow_store import home_store
    from coinml.training.train_head import model_name
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import watched
    from coinml_ops.environment import log_to

    settings = Settings()
    log_to(settings.logs_dir)
    name = options.known_dataset(settings, dataset)
    model = model_name(name, options.target(target))
    store = home_store(settings)
    with watched():
        report = run_scoring(
            settings, store, model, name, scoring.model_copy(update={"folder": folder})
        )
    if report is None:
        raise NoModelError(
            f"{model} at {store.shown} has no champion: `coinml registry` says "
            "why; train one, or make a version it by `coinml promote`"
        )
    if json:
        print_json(report.as_dict())
    else:
        _print(report)
    if report.scored.waiting or report.scored.unread:
        raise typer.Exit(_IN_PART)


def _print(report: ScoreReport) -> None:
    from coinml_cli.console import line, note, table

    done = report.scored
    for path, error in (*done.failed, *done.unread)[:_SHOWN_FAILURES]:
        note(f"{path}: {error}")
    for text in report.notes:
        note(text)
    line(str(report))
    if report.accuracies or report.unscored:
        rows = [
            ["all" if one.version is None else one.version, one.videos, one.accuracy]
            for one in report.accuracies
        ]
        table(["version", "labelled", "accuracy"], rows)
        if report.unscored:
            line(f"{report.unscored:,} labelled files have no answer")
