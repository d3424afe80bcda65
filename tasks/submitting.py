"""Running a task many times, with a limit on how many runs are in flight."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
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


def submit_in_turn(
    task: Task[..., Result], calls: Sequence[Mapping[str, Any]]
) -> list[PrefectFuture[Result]]:
    """Run the task once for each call, at the same time.

    Args:
        task: The task. It is given `turn`, a function that returns when the calls before have
            ended, whether well or not: what follows it is done in the order of the calls.
        calls: Its other arguments, by name.

    Returns:
        A future for each call.
    """
    futures: list[PrefectFuture[Result]] = []
    ends: tuple[threading.Event, ...] = ()
    for call in calls:
        # The runner starts calls in order, so that one that waits leaves those before it a thread.
        future = task.submit(**call, turn=partial(_wait_for, ends))
        ended = threading.Event()
        future.add_done_callback(lambda _, ended=ended: ended.set())
        ends = (*ends, ended)
        futures.append(future)
    return futures


def submit_in_stages(
    task: Task[..., Any],
    items: Sequence[str],
    *,
    stages: Sequence[str],
    wanted: Callable[[str, Sequence[str]], Sequence[str]],
    call: Callable[[str, list[str]], Mapping[str, Any]],
    size: int,
    at_once: int,
) -> list[BaseException]:
    """Run the task on batches of items, stage by stage, and wait for all.

    A batch goes on to the next stage when it has left one; a slow stage delays no other.

    Args:
        task: The task.
        items: What the batches are made of.
        stages: Their names, in order.
        wanted: Which of some items a stage takes; those that no later stage takes are done.
        call: The task's arguments, by name, for a batch of a stage.
        size: Number of items in a batch.
        at_once: Number of runs in flight; each stage leaves at least one to every other.

    Returns:
        The errors; a run that fails stops no other.
    """
    most = max(1, at_once - len(stages) + 1)
    waiting: list[deque[str]] = [deque() for _ in stages]
    running = [0] * len(stages)
    futures: list[PrefectFuture[Any]] = []
    ended: SimpleQueue[tuple[int, list[str]]] = SimpleQueue()

    def hand_on(some: Sequence[str], first: int) -> None:
        for number in range(first, len(stages)):
            taken = set(wanted(stages[number], some))
            waiting[number].extend(item for item in some if item in taken)
            some = [item for item in some if item not in taken]

    def start(number: int) -> None:
        # A small batch starts only where waiting would not make it larger, or would waste time.
        earlier = any(running[:number]) or any(waiting[:number])
        while waiting[number] and running[number] < most:
            if len(waiting[number]) < size and running[number] and earlier:
                return
            batch = [waiting[number].popleft() for _ in range(min(size, len(waiting[number])))]
            future = task.submit(**call(stages[number], batch))
            running[number] += 1
            futures.append(future)
            future.add_done_callback(lambda _, batch=batch: ended.put((number, batch)))

    try:
        hand_on(items, 0)
        while True:
            for number in range(len(stages)):
                start(number)
            if not any(running):
                break
            number, batch = ended.get()
            running[number] -= 1
            hand_on(batch, number + 1)
    finally:
        # On Ctrl-C too: what was started ends by itself, after its results are recorded.
        wait(futures)
    ends = [future.result(raise_on_failure=False) for future in futures]
    return [end for end in ends if isinstance(end, BaseException)]


def _wait_for(ends: Sequence[threading.Event]) -> None:
    for end in ends:
        end.wait()
