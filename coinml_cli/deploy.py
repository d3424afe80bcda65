"""`coinml deploy`: apply the deployments to a Prefect server."""

from __future__ import annotations

from typing import Annotated

import typer

from coinml.errors import InvalidInputError
from coinml_cli import options

Dataset = Annotated[
    str | None,
    typer.Option(
        help="Dataset of the scheduled deployments; by default data/COIN.json below "
        "COINML_HOME if it exists, else `mini`. This and the following options are kept in "
        "data/deployments.yaml."
    ),
]
Name = Annotated[
    str | None,
    typer.Option(help="Dataset name; by default `coin` for a JSON, DIR's for a folder."),
]
Source = Annotated[
    list[str] | None,
    typer.Option(
        metavar="URL",
        help="Where they download from: a URL template with {id}, or a folder or bucket of copies; "
        "may be repeated.",
    ),
]
Encoder = Annotated[
    str | None, typer.Option(help="Hub id or folder of a VideoMAE, or `tiny`, that they embed by.")
]
Budget = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Videos that a run tries at most.")
]
MinNew = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="They train again after this many new videos, but on Sundays."
    ),
]
Cron = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DEPLOYMENT=CRON",
        help="Schedule of one, as 'collect/hourly=7 */2 * * *' (UTC); may be repeated.",
    ),
]
Reset = Annotated[
    bool,
    typer.Option("--reset", help="Overwrite what was edited on the server, instead of keeping it."),
]


def add_commands(app: typer.Typer) -> None:
    """Add this group's command."""
    app.command(epilog="Example: coinml deploy --dataset COIN.json")(deploy)


def deploy(
    dataset: Dataset = None,
    name: Name = None,
    source: Source = None,
    encoder: Encoder = None,
    budget: Budget = None,
    min_new: MinNew = None,
    cron: Cron = None,
    reset: Reset = False,
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
    from coinml_cli.console import line, note, print_json, table
    from coinml_ops.deployments.apply import apply_all
    from coinml_ops.deployments.chosen import parse_cron, read_chosen, write_chosen
    from coinml_ops.deployments.selection import (
        absolute_dataset,
        absolute_encoder,
        configured_content,
        scheduled_selection,
    )
    from coinml_ops.prefect_server.api_provider import configured_api

    settings = Settings()
    before = read_chosen(settings.data_dir)
    chosen = before.with_options(
        dataset=None if dataset is None else absolute_dataset(dataset),
        name=name,
        source=tuple(source or ()),
        encoder=None if encoder is None else absolute_encoder(encoder),
        budget=budget,
        min_new=min_new,
        cron=parse_cron(cron or []),
    )
    selection = scheduled_selection(chosen.dataset, chosen.name, settings)
    content = configured_content(chosen, settings)
    api = configured_api()
    if api is None:
        raise InvalidInputError(
            "no Prefect server is named: start one with `coinml up`, or set PREFECT_API_URL "
            "(such as http://127.0.0.1:4200/api)"
        )
    # Before it is applied: what is cut off now is applied by the next call.
    write_chosen(settings.data_dir, chosen)
    applied, edits = apply_all(
        content, api, before=configured_content(before, settings), reset=reset, wait_s=wait
    )
    shown = without_user(api)
    if json:
        answer = {"api": shown, "selection": selection, "applied": list(map(asdict, applied))}
        print_json({**answer, "edits": [{**asdict(edit), "said": str(edit)} for edit in edits]})
        return
    table(
        ["what", "name", "", ""],
        [[one.kind, one.name, "made" if one.made else "kept", one.detail] for one in applied],
    )
    for edit in edits:
        note(str(edit))
    if any(edit.kept for edit in edits):
        note("`coinml deploy --reset` overwrites what was edited on the server")
    line(f"the scheduled deployments of {shown} work on {selection['dataset']}")
    line("workers run them: those of `coinml up`, or `prefect worker start --pool coinml`")
