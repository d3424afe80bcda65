"""The context of commands that run flows: log file, Prefect API, progress bars, Ctrl-C."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from coinml.runtime import progress
from coinml.runtime.proxies import check_proxies
from coinml_cli.console import ProgressBars, note
from coinml_ops.environment import log_to
from coinml_ops.prefect_server.api_provider import prefect_api
from coinml_ops.upkeep.moved_home import check_place

if TYPE_CHECKING:
    from coinml.data.records import Dataset
    from coinml.runtime.settings import Settings
    from coinml.selection import Selection

INTERRUPTED = 130


@contextmanager
def flow_session(settings: Settings) -> Iterator[None]:
    """Run flows within it.

    The first Ctrl-C ends every stage after its current item. All finished work is recorded by then,
    so that the next call continues from there.
    """
    check_proxies()
    check_place(settings)
    log = log_to(settings.logs_dir)
    _await_stack(settings)
    previous = signal.signal(signal.SIGINT, _interrupt)
    try:
        with prefect_api(settings.data_dir / "prefect"), watched():
            # Prefect reads the environment when it is imported, so it is imported only now.
            from tasks.events import tagged

            with tagged():
                yield
    except (KeyboardInterrupt, progress.StoppedError):
        note("interrupted: finished work is kept, and the next call continues from here")
        raise typer.Exit(INTERRUPTED) from None
    except Exception:  # Whatever it is, the log has its traceback; it is raised again.
        note(f"the log is {log}")
        raise
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def watched() -> Iterator[None]:
    """Show progress bars within it."""
    with ProgressBars() as bars, progress.listening(bars):
        yield


def _await_stack(settings: Settings) -> None:
    """Wait until the stack of this home answers, if the command is going to use it."""
    from coinml_ops.stack import record
    from coinml_ops.stack.lifecycle import wait_until_up
    from coinml_ops.stack.services import MLFLOW, PREFECT

    stack = record.read(settings.home)
    if stack is None or not stack.up():
        return
    used = {
        PREFECT: os.environ.get("PREFECT_API_URL") == stack.prefect_api,
        MLFLOW: settings.tracking_uri == stack.mlflow_url,
    }
    names = tuple(name for name, uses in used.items() if uses)
    if names:
        wait_until_up(stack, names)


def _interrupt(_signal: int, _frame: Any) -> None:
    progress.request_stop()
    raise KeyboardInterrupt


def load_shown(selection: Selection, settings: Settings) -> Dataset:
    """Load a selection and print its notes.

    Raises:
        InvalidInputError: As `Selection.load`, the home was moved, or the ledger knows another
            dataset by its name.
    """
    from coinml.ledger import Ledger

    # First: in a moved home, a dataset within it seems to be another one.
    check_place(settings)
    dataset = selection.load(settings.data_dir)
    show_notes(dataset)
    with Ledger.of(settings) as ledger:
        ledger.require_same(dataset)
    return dataset


def show_notes(dataset: Dataset) -> None:
    """Print what was skipped or spelled otherwise when a dataset was read."""
    for text in dataset.notes:
        note(f"{dataset.name}: {text}")
