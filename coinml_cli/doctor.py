"""`coinml doctor`: check this machine, with a remedy for each problem."""

from __future__ import annotations

import typer

from coinml_cli import options

MARKS = {"ok": "ok", "warning": "!!", "failed": "XX"}


def add_commands(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(epilog="Example: coinml doctor --json")(doctor)


def doctor(json: options.Json = False) -> None:
    """Check Python, torch, decoders, yt-dlp, disk, access, servers, workers and databases."""
    from coinml.runtime.settings import Settings
    from coinml_cli.console import line, print_json
    from coinml_ops.doctor.examine import examine
    from coinml_ops.prefect_server.api_provider import configured_api

    findings = examine(Settings(), prefect_api=configured_api())
    if json:
        print_json([finding.as_dict() for finding in findings])
    else:
        for finding in findings:
            line(f"{MARKS[finding.state]}  {finding.subject:<12} {finding.text}")
            if finding.remedy:
                line(f"{'':<17}{finding.remedy}")
    raise typer.Exit(any(finding.state == "failed" for finding in findings))
