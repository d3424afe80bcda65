"""Running a task many times, with a limit on how many runs are in flight."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from prefect import Task
from prefect.futures import PrefectFuture, wait

Result = TypeVar("Result")


def submit_all(
    task: Task[..., Result], calls: Sequence[Mapping[str, Any]], *, at_once: int
) -> tuple[list[Result], list[BaseException]]:
    """Run the task once for each call and wait for all; one that fails stops no other.

    Args:
        task: The task.
        calls: Its arguments, by name.
        at_once: Number of runs in flight.

    Returns:
        The results and the errors, each in the order of the calls.
    """
    room = threading.BoundedSemaphore(at_once)
    futures: list[PrefectFuture[Result]] = []
    try:
        for call in calls:
            room.acquire()
            future = task.submit(**call)
            future.add_done_callback(lambda _: room.release())
            futures.append(future)
    finally:
        # On Ctrl-C too: what was started ends by itself, after its results are recorded.
        wait(futures)
    ends: list[Result | BaseException] = [
        future.result(raise_on_failure=False) for future in futures
    ]
    errors = [end for end in ends if isinstance(end, BaseException)]
    return [end for end in ends if not isinstance(end, BaseException)], errors
