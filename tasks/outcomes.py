"""How a flow run ends: what it brought for its caller, and what it says in a list of runs."""

from __future__ import annotations

from typing import TypeVar, cast

from prefect.states import Completed

Brought = TypeVar("Brought")


def completed(data: Brought, *, message: str) -> Brought:
    """What a flow returns to end as Completed with a message of its own.

    Prefect takes the state that this is, and hands the flow's caller the data in it. The name of
    the state stays Completed whatever the message says, so that automations know it.

    Args:
        data: What the caller gets.
        message: What stands beside the run.
    """
    return cast("Brought", Completed(message=message, data=data))
