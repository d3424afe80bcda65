"""A worker is ended, and what it was carrying out is not left as running for ever.

A Prefect worker that is told to end kills its flow runs at once, and nobody tells the server: they
stay in the state Running, and hold their deployment's slot. So its runs are ended first, while the
worker stands still and can take up no other: they are told, may say what became of them, and for
whoever does not, it is said here.
"""

from __future__ import annotations

import contextlib
import http
import http.client
import json
import os
import signal
import time
import urllib.error
from typing import TYPE_CHECKING, Any

from coinml_ops.stack import processes
from coinml_ops.stack.health import post

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psutil

FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""In the environment of a flow run's process, and of those that it starts."""

RUN_GRACE_S = 30.0
"""Long enough for a stage to end after the item that it is at; a later run does the rest."""

CHILD_GRACE_S = 5.0
WORKER_GRACE_S = 10.0
BUSY_TRIES, BUSY_PAUSE_S = 5, 0.5
OPEN = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
SAID = "ended with its worker; the next run goes on from here"


def end_worker(pid: int | None, find: Callable[[], Sequence[psutil.Process]], *, api: str) -> int:
    """End a worker and its flow runs.

    Args:
        pid: The worker's; None if it has died, and only its runs are left.
        find: Answers which of its processes live, its own among them.
        api: The Prefect server's.

    Returns:
        How many processes had to be killed.
    """
    _send(pid, signal.SIGSTOP)
    runs = {one: run for one in find() if (run := processes.environment(one).get(FLOW_RUN))}
    members = {one.pid for one in runs}
    # What a run's process has started is its own to end, if it can.
    leading = [one for one in runs if _parent(one) not in members]
    killed = processes.end(
        lambda: [one for one in leading if processes.environment(one)], grace_s=RUN_GRACE_S
    )
    killed += processes.end(
        lambda: [one for one in find() if one.pid != pid], grace_s=CHILD_GRACE_S
    )
    for run in set(runs.values()):
        conclude(run, api)
    _send(pid, signal.SIGTERM)
    _send(pid, signal.SIGCONT)
    return killed + processes.end(find, grace_s=WORKER_GRACE_S, tell=False)


def conclude(flow_run: str, api: str) -> None:
    """Mark a flow run whose process is gone as crashed, with the runs within it, if it is open."""
    wanted = {"state": {"type": {"any_": list(OPEN)}}}
    found: list[dict[str, Any]] = []
    for which in ({"id": {"any_": [flow_run]}}, {"parent_flow_run_id": {"any_": [flow_run]}}):
        found += _ask(f"{api}/flow_runs/filter", {"flow_runs": {**wanted, **which}}) or []
    state = {"type": "CRASHED", "name": "Crashed", "message": SAID}
    for run in found:
        _ask(f"{api}/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def _parent(process: psutil.Process) -> int:
    import psutil

    try:
        return process.ppid()
    except psutil.Error:
        return 0


def _send(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _ask(url: str, body: dict[str, Any]) -> Any:
    """What the server answers; None if it does not."""
    for left in reversed(range(BUSY_TRIES)):
        try:
            return json.loads(post(url, body))
        except urllib.error.HTTPError as err:
            # On SQLite, it may be too busy for what it is asked at this moment.
            if err.code != http.HTTPStatus.SERVICE_UNAVAILABLE or not left:
                return None
            time.sleep(BUSY_PAUSE_S)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
            return None
    return None
