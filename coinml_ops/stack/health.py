"""Whether a service answers."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from coinml_ops.access.password import authorization, read_password
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import Service, worker_name
from coinml_ops.work_pool import POOL

TIMEOUT_S = 5.0
MISSED_HEARTBEATS = 4


@dataclass(frozen=True, slots=True)
class Api:
    """A Prefect server's API.

    Attributes:
        url: As in PREFECT_API_URL.
        password: The home's, or "".
        timeout_s: How long an answer may take.
    """

    url: str
    password: str = field(default="", repr=False)
    timeout_s: float = TIMEOUT_S

    def answers(self, path: str) -> bool:
        """Whether a path below the URL answers 200."""
        return answers(f"{self.url}{path}", password=self.password)

    def post(self, path: str, body: Any, *, method: str = "POST") -> bytes:
        """The answer to a JSON document.

        Raises:
            URLError: The server answers with an error status, or not at all.
        """
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with _open(request, self.password, self.timeout_s) as answer:
            return bytes(answer.read())


def api_of(stack: Stack) -> Api:
    """The API of a stack's Prefect server."""
    return Api(stack.prefect_api, read_password(Path(stack.home) / "data"))


def answers(url: str, *, password: str = "") -> bool:
    """Whether a URL answers 200."""
    try:
        with _open(urllib.request.Request(url), password) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
        return False


def is_up(stack: Stack, service: Service, process: Process | None) -> bool:
    """Whether a service's process lives and answers; a worker must have sent a heartbeat lately."""
    if process is None or not process.alive():
        return False
    if service.health is not None:
        return answers(service.health)
    return service.queue is not None and _has_reported(stack, service.queue, process)


def silent_s() -> float:
    """A service hangs that has not answered, or sent no heartbeat, for so many seconds."""
    # As the worker reads it from the same environment.
    every_s = float(os.environ.get("PREFECT_WORKER_HEARTBEAT_SECONDS") or 30)
    # A busy server answers in between.
    return max(MISSED_HEARTBEATS * every_s, 60.0)


def last_heartbeat(api: Api, queue: str) -> str | None:
    """When this machine's worker of a queue last sent a heartbeat, as Prefect's server writes it.

    Returns:
        None if it never did.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    try:
        answer = api.post(f"/work_pools/{POOL}/workers/filter", {})
        workers: list[dict[str, Any]] = json.loads(answer)
        own = [one for one in workers if one["name"] == worker_name(queue)]
    except (http.client.HTTPException, ValueError, LookupError, TypeError) as err:
        raise OSError(f"{api.url} does not list its workers: {err}") from err
    return own[0]["last_heartbeat_time"] if own else None


def _has_reported(stack: Stack, queue: str, process: Process) -> bool:
    """Whether the worker has sent a heartbeat since its process started, and still sends them."""
    import psutil

    try:
        last = last_heartbeat(api_of(stack), queue)
        began = datetime.fromtimestamp(psutil.Process(process.pid).create_time(), UTC)
    except (OSError, psutil.Error):
        return False
    fresh = datetime.now(UTC) - timedelta(seconds=silent_s())
    return last is not None and datetime.fromisoformat(last) > max(began, fresh)


def _open(request: urllib.request.Request, password: str, timeout_s: float = TIMEOUT_S) -> Any:
    if password:
        request.add_unredirected_header("Authorization", authorization(password))
    # Not through a proxy: both processes are on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=timeout_s)
