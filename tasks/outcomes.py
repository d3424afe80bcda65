"""How a flow run ends: its result, and its message in the list of runs."""

from __future__ import annotations

from typing import TypeVar, cast

from prefect.states import Completed

Result = TypeVar("Result")


def completed(data: Result, *, message: str) -> Result:
    """What a flow returns to end as Completed with a message of its own.

    The value is a state; Prefect gives the caller of the flow the data in it. The state's name is
    always Completed, so that automations recognise it.

    Args:
        data: The flow's result.
        message: The message of the state.
    """
    return cast("Result", Completed(message=message, data=data))
