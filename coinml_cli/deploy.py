"""`coinml deploy`: what runs by itself, applied to a Prefect server."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from coinml.errors import InvalidInputError, LocalError
from coinml_cli import options

if TYPE_CHECKING:
    from coinml.runtime.settings import Settings
    from coinml_ops.deployments.apply import Applied

BY_HAND = {"mini", "coin"}
"""Deployments that have a dataset of their own."""


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml deploy --dataset COIN.json")(deploy)


def deploy(
    dataset: Annotated[
        str | None,
        typer.Option(
            help="What the scheduled deployments work on; by default data/COIN.json below "
            "COINML_HOME if it is there, else `mini`."
        ),
    ] = None,
    name: options.Name = None,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to wait for the server to answer."),
    ] = 0,
    json: options.Json = False,
) -> None:
    """Apply the deployments of prefect.yaml to the server that PREFECT_API_URL names."""
    from dataclasses import asdict

    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json, table
    from coinml_ops.prefect_server.local_server import configured_api

    settings = Settings()
    chosen = _selection(dataset, name, settings)
    api = configured_api()
    if api is None:
        raise InvalidInputError(
            "no Prefect server is named: start one with `coinml up`, or set PREFECT_API_URL "
            "(such as http://127.0.0.1:4200/api)"
        )
    applied = _apply(chosen, settings, api, wait_s=wait)
    if json:
        print_json({"api": _shown(api), "selection": chosen, "applied": list(map(asdict, applied))})
        return
    table(
        ["what", "name", "", ""],
        [[one.kind, one.name, "made" if one.made else "kept", one.detail] for one in applied],
    )
    line(f"{chosen['dataset']} is what the scheduled deployments of {_shown(api)} work on")
    line("workers run them: those of `coinml up`, or `prefect worker start --pool coinml`")


def _selection(dataset: str | None, name: str | None, settings: Settings) -> dict[str, Any]:
    """The parameter `selection` of the scheduled deployments; paths are absolute in it.

    Raises:
        InvalidInputError: The dataset cannot be read.
    """
    from coinml.data.annotations import FOLDER_PREFIX
    from coinml.selection import MINI, Selection

    if dataset is None:
        coin = settings.data_dir / "COIN.json"
        dataset = str(coin) if coin.is_file() else MINI
    if dataset.startswith(FOLDER_PREFIX):
        folder = Path(dataset.removeprefix(FOLDER_PREFIX)).expanduser()
        dataset = FOLDER_PREFIX + str(folder.resolve())
    elif dataset != MINI:
        dataset = str(Path(dataset).expanduser().resolve())
    selection = Selection(dataset=dataset, name=name)
    if not selection.is_mini:
        # Said now and not by tonight's run; the miniature is drawn by whoever runs first.
        selection.load(settings.data_dir)
    return selection.model_dump(mode="json", exclude_defaults=True) | {"dataset": dataset}


def _check_answers(api: str, *, within_s: float) -> None:
    """Ask the server how it is, until it says so.

    Raises:
        LocalError: It does not answer.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=10):
                return
        except (OSError, ValueError) as err:
            if time.monotonic() >= deadline:
                said = f"the Prefect server at {_shown(api)} does not answer"
                raise LocalError(f"{said}: {err}") from err
        time.sleep(0.3)


def _apply(chosen: dict[str, Any], settings: Settings, api: str, *, wait_s: float) -> list[Applied]:
    # Slow to import, and better done while a server is about to answer.
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    from coinml_ops.deployments import apply
    from tasks.limits import BATCHES, ceiling

    content = apply.read_file()
    for config in content["deployments"]:
        if config["name"] not in BY_HAND:
            config["parameters"]["selection"] = chosen
        elif config["name"] == "coin":
            config["parameters"]["selection"] = _coin(chosen, settings)
    _check_answers(api, within_s=wait_s)
    try:
        with get_client(sync_client=True) as client:
            applied = apply.apply_pool(client)
            limit = ceiling(client)
            applied.append(
                apply.Applied(
                    kind="limit", name=BATCHES, made=limit.made, detail=f"{limit.at_once} at once"
                )
            )
            applied += apply.apply_automations(client)
            applied += apply.apply_deployments(client, content)
    except (httpx.HTTPError, PrefectHTTPStatusError) as err:
        raise LocalError(f"the Prefect server at {_shown(api)} refused: {err}") from err
    return applied


def _coin(chosen: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What `pipeline/coin` works on: what is scheduled, if that is COIN, else where COIN goes."""
    if chosen["dataset"].endswith(".json"):
        return chosen
    return {"dataset": str(settings.data_dir / "COIN.json")}


def _shown(api: str) -> str:
    """A URL without what somebody may have put before its host."""
    parts = urlsplit(api)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
