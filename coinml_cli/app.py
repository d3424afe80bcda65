"""The `coinml` command: parses options, runs a flow or calls the library, prints.

Nothing heavy is imported before a command needs it, so that `coinml --help` and
`coinml status` answer at once.
"""

from __future__ import annotations

import logging
import sys

import typer

from coinml.errors import CoinmlError, InvalidInputError
from coinml_cli import (
    alerts,
    audit,
    backup,
    check,
    clients,
    collect,
    count_annotations,
    deploy,
    doctor,
    embed,
    embeddings,
    gc,
    move_dataset,
    move_home,
    move_ledger,
    move_runs,
    predict,
    pretrain,
    registry,
    report,
    reprocess,
    run,
    score,
    similar,
    status,
    study,
    train,
    up,
)
from coinml_cli.console import note
from coinml_ops.environment import prepare_environment, use_stack
from coinml_ops.prefect_project import import_from_project

DONE, FAILED, WRONG_USAGE, IN_PART = 0, 1, 2, 3

app = typer.Typer(
    name="coinml",
    help="From a list of YouTube videos, many of them lost, to a video classifier you can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 in part (more is due later).",
)
for group in (
    run,
    reprocess,
    count_annotations,
    collect,
    status,
    check,
    embed,
    similar,
    embeddings,
    train,
    pretrain,
    registry,
    predict,
    score,
    move_dataset,
    move_runs,
    study,
    audit,
    report,
    deploy,
    up,
    clients,
    alerts,
    doctor,
    backup,
    gc,
    move_home,
    move_ledger,
):
    group.add_commands(app)


def main() -> None:
    """Run the command; print a `CoinmlError` as one line, without a traceback."""
    prepare_environment()
    use_stack()
    try:
        import_from_project()
        app()
    except InvalidInputError as err:
        note(f"error: {err}")
        sys.exit(WRONG_USAGE)
    except CoinmlError as err:
        note(f"error: {err}")
        sys.exit(FAILED)
    except Exception as err:
        # A bug: the log gets the traceback, the user one line.
        logging.getLogger(__name__).exception("unexpected")
        note(f"unexpected error: {type(err).__name__}: {err}")
        sys.exit(FAILED)
