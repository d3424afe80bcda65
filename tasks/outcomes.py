"""How a flow run ends: its result, and its message in the list of runs."""

from __future__ import annotations

import atexit
import logging
from functools import cache
from tempfile import TemporaryDirectory
from typing import TypeVar, cast

from prefect.context import FlowRunContext
from prefect.filesystems import LocalFileSystem
from prefect.results import ResultStore
from prefect.states import Completed

SKIPPED = "Skipped"
"""Name of the state of a run that had nothing to do; its type is Completed."""

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def completed(data: Result, *, message: str, idle: bool = False) -> Result:
    """What a flow returns to end as Completed with a message of its own.

    The value is a state; Prefect gives the caller of the flow the data in it. The state's name is
    Completed or Skipped, which automations recognise.

    Args:
        data: The flow's result.
        message: The message of the state; of an idle run the reason.
        idle: Whether there was nothing to do, so that the state is named Skipped.
    """
    name = SKIPPED if idle else None
    if FlowRunContext.get() is None:
        return cast("Result", Completed(name=name, message=message, data=data))
    # Where the server's answer to the final state is lost, the client asks again and is given the
    # state that the server knows. That one has the data only by a reference to a stored record.
    store = ResultStore(result_storage=LocalFileSystem(basepath=_folder()))
    record = store.create_result_record(data)
    try:
        store.persist_result_record(record)
    # The record is only for a lost answer; no flow fails at its end for want of it.
    except OSError as err:
        logger.warning("the result is not stored beside the state: %s", err)
        return cast("Result", Completed(name=name, message=message, data=data))
    return cast("Result", Completed(name=name, message=message, data=record))


@cache
def _folder() -> str:
    """Where records are until this process ends; only the caller of the flow reads them."""
    folder = TemporaryDirectory(prefix="coinml-results-")
    atexit.register(folder.cleanup)
    return folder.name
