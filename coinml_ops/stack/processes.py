"""The processes of a stack and what they have started, found by what is in their environment."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from coinml_ops.stack.services import MARK, SERVICE

if TYPE_CHECKING:
    import psutil

KILL_TIMEOUT_S = 10.0


def marked(stack_id: str, *, service: str | None = None) -> list[psutil.Process]:
    """Living processes of a stack, or of one of its services, children of theirs included.

    A child whose parent was killed is found as well, since it keeps its environment.
    """
    import psutil

    return [
        process
        for process in _others(psutil.process_iter())
        if (variables := environment(process)).get(MARK) == stack_id
        and (service is None or variables.get(SERVICE) == service)
    ]


def end(find: Callable[[], Sequence[psutil.Process]], *, grace_s: float, tell: bool = True) -> int:
    """Have processes end: SIGTERM, time to finish, SIGKILL to whatever is left.

    Args:
        find: Answers which are left; what they start meanwhile is among them.
        grace_s: Seconds before SIGKILL.
        tell: Send SIGTERM first; otherwise they know already.

    Returns:
        How many had to be killed.
    """
    import psutil

    left = find()
    if tell:
        for process in left:
            _send(process.terminate)
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=min(1.0, max(0.0, deadline - time.monotonic())))
        left = find()
    killed = len(left)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while left and time.monotonic() < deadline:
        for process in left:
            _send(process.kill)
        psutil.wait_procs(left, timeout=1.0)
        left = find()
    return killed


def environment(process: psutil.Process) -> dict[str, str]:
    """A living process's environment; empty if there is none to be had."""
    import psutil

    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return {}
        return process.environ()
    except (psutil.Error, OSError):
        # Somebody else's, or gone by now.
        return {}


def _others(processes: Iterator[psutil.Process]) -> Iterator[psutil.Process]:
    return (process for process in processes if process.pid != os.getpid())


def _send(signal: Callable[[], None]) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        signal()
