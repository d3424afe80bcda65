"""`coinml deploy`: apply the deployments to a Prefect server."""

from __future__ import annotations

from typing import Annotated

import typer

from coinml.errors import InvalidInputError
from coinml_cli import options


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml deploy --dataset COIN.json")(deploy)


def deploy(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Dataset of the scheduled deployments; by default data/COIN.json below "
            "COINML_HOME if it exists, else `mini`."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Dataset name; by default `coin` for a JSON, DIR's for a folder."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to wait for the server to answer."),
    ] = 0,
    json: options.Json = False,
) -> None:
    """Apply the deployments of prefect.yaml to the server that PREFECT_API_URL names."""
    from dataclasses import asdict

    from coinml.runtime.addresses import without_user
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json, table
    from coinml_ops.deployments.apply import apply_all, read_file
    from coinml_ops.deployments.selection import scheduled_selection, set_selection
    from coinml_ops.prefect_server.api_provider import configured_api

    settings = Settings()
    selection = scheduled_selection(dataset, name, settings)
    api = configured_api()
    if api is None:
        raise InvalidInputError(
            "no Prefect server is named: start one with `coinml up`, or set PREFECT_API_URL "
            "(such as http://127.0.0.1:4200/api)"
        )
    content = read_file()
    set_selection(content, selection, settings)
    applied = apply_all(content, api, wait_s=wait)
    shown = without_user(api)
    if json:
        print_json({"api": shown, "selection": selection, "applied": list(map(asdict, applied))})
        return
    table(
        ["what", "name", "", ""],
        [[one.kind, one.name, "made" if one.made else "kept", one.detail] for one in applied],
    )
    line(f"the scheduled deployments of {shown} work on {selection['dataset']}")
    line("workers run them: those of `coinml up`, or `prefect worker start --pool coinml`")
