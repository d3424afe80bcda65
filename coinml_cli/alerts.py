"""`coinml alerts`: who is told when something is wrong, or well again."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from coinml_cli import options

alerts = typer.Typer(
    name="alerts", invoke_without_command=True, epilog="Example: coinml alerts --json"
)


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.add_typer(alerts)


@alerts.callback()
def main(context: typer.Context, json: options.Json = False) -> None:
    """Send alerts to a webhook, Slack or a mailbox: add, list, remove or test the addresses."""
    if context.invoked_subcommand is None:
        list_(json=json)
    elif json:
        name = context.invoked_subcommand
        raise typer.BadParameter(f"options go after the command: coinml alerts {name} …")


@alerts.command(epilog="Example: coinml alerts add https://example.com/hook")
def add(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL",
            help="`https://…` (Slack's webhooks are known by their host) or `mailtos://…`; `-`: "
            "read it from standard input, since every user can briefly see a command line.",
        ),
    ],
    json: options.Json = False,
) -> None:
    """Send all alerts to an address from now on; adding it again changes nothing."""
    from coinml_cli.console import line, print_json
    from coinml_ops.alerts.registered import add_alert, alerts_of
    from coinml_ops.prefect_server.api_provider import configured_api

    if url == "-":
        url = sys.stdin.readline()
    with alerts_of(configured_api()) as client:
        alert, new = add_alert(client, url.strip())
    if json:
        print_json(alert.as_dict() | {"new": new})
    else:
        made = "alerts go" if new else "alerts already went"
        line(f"{made} to {alert.shown} ({alert.kind}, number {alert.number})")
        line("`coinml alerts test` sends a test")


@alerts.command("list", epilog="Example: coinml alerts list --json")
def list_(json: options.Json = False) -> None:
    """List the addresses, without their secrets."""
    from coinml_cli.console import line, print_json, table
    from coinml_ops.alerts.registered import alerts_of, list_alerts
    from coinml_ops.prefect_server.api_provider import configured_api

    with alerts_of(configured_api()) as client:
        found = list_alerts(client)
    if json:
        print_json([one.as_dict() for one in found])
    elif found:
        rows = [
            [one.number, one.kind, one.shown, "" if one.enabled else "disabled"] for one in found
        ]
        table(["number", "kind", "address", ""], rows)
    else:
        line("alerts are sent nowhere: `coinml alerts add URL`")


@alerts.command(epilog="Example: coinml alerts remove 1")
def remove(
    which: Annotated[str, typer.Argument(metavar="NUMBER|URL", help="Which address.")],
    json: options.Json = False,
) -> None:
    """Send nothing more to an address."""
    from coinml_cli.console import line, print_json
    from coinml_ops.alerts.registered import alerts_of, remove_alert
    from coinml_ops.prefect_server.api_provider import configured_api

    with alerts_of(configured_api()) as client:
        removed = remove_alert(client, which)
    if json:
        print_json(removed.as_dict())
    else:
        line(f"nothing more is sent to {removed.shown} (number {removed.number})")


@alerts.command("test", epilog="Example: coinml alerts test")
def try_(
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, help="How long to wait for the server to send it."),
    ] = 60,
    json: options.Json = False,
) -> None:
    """Send a test to every address, on the way of a real alert; fails if one did not get it."""
    from coinml_cli.console import line, note, print_json
    from coinml_ops.alerts.registered import alerts_of, list_alerts
    from coinml_ops.alerts.trial import send_test
    from coinml_ops.prefect_server.api_provider import configured_api

    with alerts_of(configured_api()) as client:
        found = list_alerts(client)
        outcomes = send_test(client, found, wait_s=wait)
    if json:
        print_json([one.as_dict() | {"outcome": outcomes[one.number]} for one in found])
    for one in found:
        if not json:
            line(f"{one.number}  {one.kind:<8} {one.shown}  {outcomes[one.number]}")
    if not found:
        note("alerts are sent nowhere: `coinml alerts add URL`")
    raise typer.Exit(not found or set(outcomes.values()) != {"sent"})
