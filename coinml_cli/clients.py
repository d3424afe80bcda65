"""`coinml prefect` and `coinml mlflow`: either client's command against this home's servers."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import typer

from coinml.errors import LocalError

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(
        context_settings=_PASSED_ON, epilog="Example: coinml prefect deployment run pipeline/mini"
    )(prefect)
    app.command(context_settings=_PASSED_ON, epilog="Example: coinml mlflow experiments search")(
        mlflow
    )


def prefect(ctx: typer.Context) -> None:
    """Run Prefect's command against the server of `coinml up`; all arguments are passed on."""
    from coinml_ops.prefect_server.api_provider import configured_api

    if configured_api() is None:
        # Prefect would start a temporary server, on which there is nothing.
        raise LocalError(
            "no Prefect server is running for this home: `coinml up` starts one, or set "
            "PREFECT_API_URL"
        )
    _run("prefect", ctx.args)


def mlflow(ctx: typer.Context) -> None:
    """Run MLflow's command against this home's server or files; all arguments are passed on."""
    from coinml.runtime.settings import Settings

    if not os.environ.get("MLFLOW_TRACKING_URI"):
        os.environ["MLFLOW_TRACKING_URI"] = Settings().tracking_uri
    _run("mlflow", ctx.args)


def _run(module: str, arguments: list[str]) -> NoReturn:
    """Replace this process by a Python module's command."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *arguments])
