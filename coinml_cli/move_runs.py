"""`coinml move-runs`: copy MLflow's local store to where a server can serve it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from coinml_cli import options
from coinml_ops.environment import FROM_STACK


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(
        epilog="Example: coinml move-runs --to sqlite:////srv/mlflow/mlflow.db "
        "--artifacts /srv/mlflow/artifacts"
    )(move_runs)


def move_runs(
    to: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="The new database: sqlite:////PATH/mlflow.db or postgresql://USER@HOST/DATABASE.",
        ),
    ],
    artifacts: Annotated[
        str, typer.Option(metavar="DIR", help="Folder or URL that the server serves them from.")
    ],
    json: options.Json = False,
) -> None:
    """Copy runs, models and artifacts to where a server reaches them; the originals stay."""
    from dataclasses import asdict

    from coinml.runtime.addresses import masked
    from coinml.runtime.settings import Settings
    from coinml.tracking.copy_store import copy_store
    from coinml.tracking.mlflow_store import MlflowStore
    from coinml_cli.console import line, note, print_json

    if "MLFLOW_TRACKING_URI" in FROM_STACK:
        # Copy the local store itself, not the address at which `coinml up` serves it.
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    settings = Settings()
    store = MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
    copied = copy_store(store, to, artifacts)
    for place in copied.elsewhere:
        note(f"not copied, since it is not below {settings.artifact_root}: {place}")
    if json:
        print_json(asdict(copied))
        return
    line(
        f"{copied.runs} runs, {copied.versions} registered versions, {copied.files} files of "
        f"{copied.size_bytes / 1e6:.1f} MB"
    )
    line("serve them:   MLFLOW_BACKEND_STORE_URI=<the URL> mlflow server --workers 1 \\")
    served = masked(artifacts)
    line(f"                --artifacts-destination {served} --host 0.0.0.0 --allowed-hosts NAME")
    line("use them:     export MLFLOW_TRACKING_URI=http://NAME:5000")
