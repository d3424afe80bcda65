"""Stops a service. A worker's flow runs end first and are marked as crashed on the server.

A Prefect worker that receives SIGTERM kills its flow runs at once and does not tell the server:
they stay in the state Running and keep their deployment's concurrency slot. So the worker is
paused (SIGSTOP), which keeps it from taking another run, its runs get SIGTERM and time to report
their own state, and runs that are still open on the server afterwards are marked as crashed.
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

from coinml_ops.stack import running_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psutil

    from coinml_ops.stack.health import Api
    from coinml_ops.stack.record import Process
    from coinml_ops.stack.services import Service

FLOW_RUN = "PREFECT__FLOW_RUN_ID"
"""Environment variable of a flow run's process and its children."""

SERVER_GRACE_S = 15.0
RUN_GRACE_S = 30.0
"""Long enough for a stage to finish its current item; a later run does the rest."""

CHILD_GRACE_S = 5.0
WORKER_GRACE_S = 10.0
BUSY_TRIES, BUSY_PAUSE_S = 5, 0.5
OPEN_STATES = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
MESSAGE = "ended with its worker; the next run goes on from here"


def stop_service(
    service: Service,
    process: Process | None,
    find: Callable[[], Sequence[psutil.Process]],
    *,
    api: Api,
) -> int:
    """Stop a server or a worker of a stack, with its children.

    Args:
        service: Which.
        process: Its process, if one is known.
        find: Returns its living processes, children included.
        api: Prefect's, where a worker's runs are concluded.

    Returns:
        Number of processes that had to be killed.
    """
    if service.queue is None:
        return running_processes.terminate(find, grace_s=SERVER_GRACE_S)
    alive = process is not None and process.alive()
    return stop_worker(process.pid if process and alive else None, find, api=api)


def stop_worker(pid: int | None, find: Callable[[], Sequence[psutil.Process]], *, api: Api) -> int:
    """Stop a worker's flow runs, then the worker.

    Args:
        pid: The worker's; None if it has died and only its runs are left.
        find: Returns its living processes, the worker's own included.
        api: Prefect's.

    Returns:
        Number of processes that had to be killed.
    """
    _send(pid, signal.SIGSTOP)
    runs = {one: run for one in find() if (run := running_processes.environment(one).get(FLOW_RUN))}
    members = {one.pid for one in runs}
    # A run's main process ends its own children, if it can.
    leading = [one for one in runs if _parent(one) not in members]
    killed = running_processes.terminate(
        lambda: [one for one in leading if running_processes.environment(one)], grace_s=RUN_GRACE_S
    )
    killed += running_processes.terminate(
        lambda: [one for one in find() if one.pid != pid], grace_s=CHILD_GRACE_S
    )
    for run in set(runs.values()):
        mark_crashed(run, api)
    _send(pid, signal.SIGTERM)
    _send(pid, signal.SIGCONT)
    return killed + running_processes.terminate(find, grace_s=WORKER_GRACE_S, send_sigterm=False)


def mark_crashed(flow_run: str, api: Api) -> None:
    """Mark a flow run and its subflows as crashed, where the server still has them as open."""
    is_open = {"state": {"type": {"any_": list(OPEN_STATES)}}}
    found: list[dict[str, Any]] = []
    for which in ({"id": {"any_": [flow_run]}}, {"parent_flow_run_id": {"any_": [flow_run]}}):
        found += ask(api, "/flow_runs/filter", {"flow_runs": {**is_open, **which}}) or []
    state = {"type": "CRASHED", "name": "Crashed", "message": MESSAGE}
    for run in found:
        ask(api, f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})


def ask(api: Api, path: str, body: dict[str, Any]) -> Any:
    """The server's answer to a JSON document; None if it does not answer."""
    for left in reversed(range(BUSY_TRIES)):
        try:
            return json.loads(api.post(path, body))
        except urllib.error.HTTPError as err:
            # On SQLite, the server answers 503 while the database is locked.
            if err.code != http.HTTPStatus.SERVICE_UNAVAILABLE or not left:
                return None
            time.sleep(BUSY_PAUSE_S)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
            return None
    return None


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
