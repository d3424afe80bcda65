"""Whether a service answers."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import Service, worker_name
from coinml_ops.work_pool import POOL

TIMEOUT_S = 5.0


def answers(url: str) -> bool:
    """Whether a URL answers 200."""
    try:
        with _open(url) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
        return False


def post(url: str, body: dict[str, Any], *, timeout_s: float = TIMEOUT_S) -> bytes:
    """A server's answer to a JSON document.

    Raises:
        URLError: It answers with an error status, or not at all.
    """
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with _open(request, timeout_s) as answer:
        return bytes(answer.read())


def is_up(stack: Stack, service: Service, process: Process | None) -> bool:
    """Whether a service's process lives and answers; a worker must have sent a heartbeat."""
    if process is None or not process.alive():
        return False
    if service.health is not None:
        return answers(service.health)
    return service.queue is not None and _has_reported(stack, service.queue, process)


def _has_reported(stack: Stack, queue: str, process: Process) -> bool:
    """Whether the worker has sent a heartbeat since its process started."""
    import psutil

    try:
        answer = post(f"{stack.prefect_api}/work_pools/{POOL}/workers/filter", {})
        workers: list[dict[str, Any]] = json.loads(answer)
        began = datetime.fromtimestamp(psutil.Process(process.pid).create_time(), UTC)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError, psutil.Error):
        return False
    heard = [
        worker["last_heartbeat_time"] for worker in workers if worker["name"] == worker_name(queue)
    ]
    return any(time and datetime.fromisoformat(time) > began for time in heard)


def _open(request: str | urllib.request.Request, timeout_s: float = TIMEOUT_S) -> Any:
    # Not through a proxy: both processes are on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=timeout_s)
