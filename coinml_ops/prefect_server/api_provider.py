"""Provides a command with a Prefect API: the configured one, or that of a local server."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coinml_ops.access.password import PREFECT_CLIENT, auth_string
from coinml_ops.prefect_server.local_server import LocalPrefect
from coinml_ops.stack.health import Api

DRAIN_TIMEOUT_S = 30.0
COUNT_TIMEOUT_S = 10.0
STILL_S = 1.5
"""Longer than the server's recorder takes between two writes."""

UNFINISHED = {"task_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}


@contextlib.contextmanager
def prefect_api(folder: Path) -> Iterator[None]:
    """Provide an API for the flows run within it; at the end, all their rows are written.

    Must be entered before Prefect is imported, which reads its environment only once.

    Args:
        folder: Where a local server keeps its database.

    Raises:
        LocalError: The local server did not start.
    """
    if configured_api():
        yield
        return
    server = LocalPrefect(folder)
    url = server.start()
    api = Api(url, server.password, timeout_s=COUNT_TIMEOUT_S)
    os.environ["PREFECT_API_URL"] = url
    os.environ[PREFECT_CLIENT] = auth_string(api.password)
    os.environ.setdefault("PREFECT_HOME", str(folder))
    try:
        server.wait(url)
        # Task runs of a command that was killed earlier never finish.
        abandoned = max(0, _count(api, UNFINISHED))
        try:
            yield
        finally:
            _send_logs()
            _drain(api, abandoned=abandoned)
    finally:
        for name in ("PREFECT_API_URL", PREFECT_CLIENT):
            os.environ.pop(name, None)
        server.leave()


def configured_api() -> str | None:
    """The API that the environment or the active Prefect profile names, if any."""
    if os.environ.get("PREFECT_API_URL"):
        return os.environ["PREFECT_API_URL"]
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(os.environ.get("PREFECT_PROFILES_PATH", home / "profiles.toml"))
    try:
        profiles = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = os.environ.get("PREFECT_PROFILE", profiles.get("active", ""))
    url = profiles.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")
    return str(url) if url else None


def _send_logs() -> None:
    """Send the records that Prefect's log handler still holds, while the server is there."""
    if "prefect" in sys.modules:
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=DRAIN_TIMEOUT_S)


def _drain(api: Api, *, abandoned: int) -> None:
    """Wait until the server has written every task run.

    It writes them from a queue. The count is final when no run is unfinished and the count has
    not changed for longer than the queue's flush interval.

    Args:
        api: The server's.
        abandoned: Number of runs that were unfinished before this command and stay so.
    """
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    last, still_since = -1, time.monotonic()
    while time.monotonic() < deadline:
        total, unfinished = _count(api, {}), _count(api, UNFINISHED)
        if total != last or unfinished > abandoned:
            last, still_since = total, time.monotonic()
        elif time.monotonic() - still_since > STILL_S:
            return
        time.sleep(0.25)


def _count(api: Api, body: dict[str, Any]) -> int:
    """Number of task runs that match a filter; -1 if the server does not answer."""
    try:
        return int(api.post("/task_runs/count", body))
    except (OSError, ValueError):
        return -1
