"""A home that nobody uses: what may be restored, and what its record says afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.settings import Settings
from coinml_ops.prefect_server.local_server import LocalPrefect
from coinml_ops.stack import record
from coinml_ops.upkeep.relocate import Move


def check_unused(settings: Settings) -> None:
    """Check that no server and no command uses a home; an idle local server is stopped.

    Raises:
        InvalidInputError: One does.
    """
    stack = record.read(settings.home)
    if stack is not None and (stack.up() or any(one.alive() for one in stack.services.values())):
        raise InvalidInputError(f"{settings.home} is in use by `coinml up`: first `coinml down`")
    try:
        LocalPrefect(settings.data_dir / "prefect").make_way()
    except LocalError as err:
        raise InvalidInputError(str(err)) from err


def take_over_record(settings: Settings) -> None:
    """Make the stack's record, if it came from elsewhere, that of this home, without processes."""
    stack = record.read(settings.home)
    if stack is not None:
        move = Move(Path(stack.moved_from or settings.home), settings.home)
        record.write(
            replace(
                stack,
                home=str(settings.home),
                moved_from="",
                dataset=move.applied_to(stack.dataset),
                ledger_url=move.applied_to(stack.ledger_url),
                supervisor=None,
                services={},
            )
        )
