"""`coinml train` and `compare`: heads, and two of them on the same videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from coinml_cli.model_options import add_command
from coinml_cli.options import Json, home_in_place

if TYPE_CHECKING:
    from coinml.embedding_sets.options import SetOptions
    from coinml.selection import Selection
    from coinml.training.options import TrainOptions


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    add_command(app, train, epilog="Example: coinml train --dataset mini --heads mlp")
    app.command(epilog="Example: coinml compare RUN_ID RUN_ID --split val")(compare)


def train(
    selection: Selection, set_options: SetOptions, options: TrainOptions, json: Json = False
) -> None:
    """Train heads on the embedded videos; each is a run in MLflow and a registered version."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import print_json
    from coinml_cli.flow_session import flow_session, load_shown
    from coinml_cli.result_tables import print_heads

    settings = Settings()
    # Contradictory options are refused before a server is started.
    set_options = set_options.for_target(options.target_for(set_options))
    load_shown(selection, settings)
    with flow_session(settings):
        from flows.train import train as flow

        summary = flow(selection, set_options, options)
    if json:
        print_json(summary.as_dict())
    else:
        print_heads(summary)


def compare(
    run_a: Annotated[str, typer.Argument(help="An MLflow run id.")],
    run_b: Annotated[str, typer.Argument(help="Another MLflow run id.")],
    split: Annotated[str, typer.Option(help="`val` or `test`.")] = "test",
    record: Annotated[
        bool, typer.Option("--record", help="Log the comparison to the second run, with figures.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare two runs on the videos that both were evaluated on, with a paired test."""
    from coinml.ledger import Ledger
    from coinml.tracking.compare_runs import compare_runs
    from coinml.tracking.mlflow_store import MlflowStore
    from coinml_cli.console import print_json
    from coinml_cli.result_tables import print_comparison

    settings = home_in_place()
    store = MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
    with Ledger.of(settings) as ledger:
        found = compare_runs(store, run_a, run_b, split=split, ledger=ledger, record=record)
    if json:
        print_json(found.as_dict())
    else:
        print_comparison(found)
