"""The `coinml` command: parse, start a flow or call the library, print.

Nothing heavy is imported before a command needs it, so that `coinml --help` and
`coinml status` answer at once.
"""

from __future__ import annotations

import logging
import sys

import typer

from coinml.errors import CoinmlError, InvalidInputError
from flows.cli import (
    annotating,
    collecting,
    deploying,
    diagnosing,
    embedding,
    embeddings,
    moving,
    operating,
    reporting,
    running,
    studying,
    training,
)
from flows.cli.console import note
from flows.cli.environment import prepare_environment, use_stack

DONE, FAILED, WRONG_USAGE, IN_PART = 0, 1, 2, 3

app = typer.Typer(
    name="coinml",
    help="From a list of flaky YouTube videos to a video classifier that one can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 in part (more is due later).",
)
for module in (
    running,
    annotating,
    collecting,
    embedding,
    embeddings,
    training,
    moving,
    studying,
    reporting,
    deploying,
    operating,
    diagnosing,
):
    module.add_commands(app)


def main() -> None:
    """Run the command; a failure that coinml understands is one line, not a traceback."""
    prepare_environment()
    use_stack()
    try:
        app()
    except InvalidInputError as err:
        note(f"error: {err}")
        sys.exit(WRONG_USAGE)
    except CoinmlError as err:
        note(f"error: {err}")
        sys.exit(FAILED)
    except Exception as err:
        # Nobody foresaw it: the traceback is for the log, a line for the person.
        logging.getLogger(__name__).exception("unexpected")
        note(f"unexpected error: {type(err).__name__}: {err}")
        sys.exit(FAILED)
