"""Finds a stack's processes by the variables in their environment, and ends them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from coinml_ops.stack.services import MARK, SERVICE

if TYPE_CHECKING:
    import psutil

KILL_TIMEOUT_S = 10.0


def of_stack(stack_id: str, *, service: str | None = None) -> list[psutil.Process]:
    """Running processes of a stack, or of one of its services, including children.

    A child whose parent was killed is found as well, since it keeps its environment. The command
    line does not matter: processes of an earlier version are found, too.
    """
    import psutil

    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid()
        and (variables := environment(process)).get(MARK) == stack_id
        and (service is None or variables.get(SERVICE) == service)
    ]


def terminate(
    find: Callable[[], Sequence[psutil.Process]], *, grace_s: float, send_sigterm: bool = True
) -> int:
    """End processes: SIGTERM, time to finish, SIGKILL to those that remain.

    Args:
        find: Returns the processes that remain, those started in the meantime included.
        grace_s: Seconds before SIGKILL.
        send_sigterm: False if they have been told to end already.

    Returns:
        Number of processes that had to be killed.
    """
    import psutil

    left = find()
    if send_sigterm:
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
    """A living process's environment; empty for another user's process or one that has ended."""
    import psutil

    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return {}
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def _send(signal: Callable[[], None]) -> None:
    import psutil

    with contextlib.suppress(psutil.Error):
        signal()
