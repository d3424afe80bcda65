"""A Prefect API for this command: the one that is configured, else a local server of our own.

Prefect's ephemeral server times out on a slow first start and loses most task-run rows
when the process ends, hence a server of our own: shared by concurrent commands, with its
database below `COINML_HOME/data/prefect`, and left only when it has written every row.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coinml.errors import LocalError
from coinml.runtime.process_identity import process_start
from coinml_ops.prefect_server.process import live_users
from coinml_ops.stack.services import QUIET, RECORDER

START_TIMEOUT_S = 180.0
DRAIN_TIMEOUT_S = 30.0

SERVER_ENVIRONMENT = {
    **QUIET,
    **RECORDER,
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # There are no deployments on it, so nothing to schedule, trigger or find late.
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
}

UNFINISHED = {"task_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING"]}}}}


class LocalPrefect:
    """The server's folder: who serves, who uses it.

    `start` returns at once; `wait` blocks until the API answers. Between the two the
    caller can do what needs no Prefect, since a server takes ten to twenty seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users = folder / "users"
        self.record = folder / "server.json"
        self.log = folder / "server.log"

    def start(self) -> str:
        """Join the running server or start one; return its API address."""
        from filelock import FileLock

        self.users.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            me = os.getpid()
            (self.users / str(me)).write_text(process_start(me))
            running = self._running()
            if running is None:
                running = self._launch()
                temporary = self.record.with_suffix(".tmp")
                temporary.write_text(json.dumps(running))
                temporary.replace(self.record)
        return f"http://127.0.0.1:{running['port']}/api"

    def wait(self, api: str) -> None:
        """Block until the API answers.

        Raises:
            LocalError: If the server ended or did not answer in time; names its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if _healthy(api):
                return
            if self._running() is None:
                break
            time.sleep(0.2)
        raise LocalError(f"the local Prefect server did not start; its log is {self.log}")

    def leave(self) -> None:
        """Stop using the server; the last one to leave stops it."""
        from filelock import FileLock

        with FileLock(self.folder / "lock"):
            (self.users / str(os.getpid())).unlink(missing_ok=True)
            running = self._running()
            if running is None or live_users(self.users):
                return
            self.record.unlink(missing_ok=True)
            _terminate(int(running["pid"]))

    def make_way(self) -> None:
        """End the server if nobody uses it, for another one on the same database.

        Raises:
            LocalError: Commands use it.
        """
        from filelock import FileLock

        if not self.record.is_file():
            return
        with FileLock(self.folder / "lock"):
            users = live_users(self.users)
            if users:
                raise LocalError(
                    "coinml is at work with a Prefect server of its own (process "
                    f"{', '.join(map(str, users))}): wait until it is done"
                )
            running = self._running()
            if running is not None:
                _terminate(int(running["pid"]))
            self.record.unlink(missing_ok=True)

    def _running(self) -> dict[str, Any] | None:
        try:
            record = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return None
        alive = record["started"] and process_start(record["pid"]) == record["started"]
        return record if alive else None

    def _launch(self) -> dict[str, Any]:
        port = _free_port()
        environment = {
            **os.environ,
            **SERVER_ENVIRONMENT,
            "PREFECT_HOME": str(self.folder),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
                f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}"
            ),
        }
        environment.pop("PREFECT_API_URL", None)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "coinml_ops.prefect_server.process"),
                    *("--port", str(port), "--users", str(self.users)),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the command, which still has rows to hand in.
                start_new_session=True,
            )
        return {"pid": process.pid, "started": process_start(process.pid), "port": port}


@contextlib.contextmanager
def prefect_api(folder: Path) -> Iterator[None]:
    """Within it, flows find an API; at the end every row of theirs is written.

    Must be entered before Prefect is imported, which reads its environment only then.
    """
    if configured_api():
        yield
        return
    server = LocalPrefect(folder)
    api = server.start()
    os.environ["PREFECT_API_URL"] = api
    os.environ.setdefault("PREFECT_HOME", str(folder))
    try:
        server.wait(api)
        # What a killed command left unfinished will never finish.
        abandoned = max(0, _count(api, UNFINISHED))
        try:
            yield
        finally:
            _hand_in_logs()
            _drain(api, abandoned=abandoned)
    finally:
        os.environ.pop("PREFECT_API_URL", None)
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


def _hand_in_logs() -> None:
    """Send what Prefect's log handler still holds, while there is someone to take it."""
    if "prefect" in sys.modules:
        from prefect.logging.handlers import APILogWorker

        APILogWorker.drain_all(timeout=DRAIN_TIMEOUT_S)


def _drain(api: str, *, abandoned: int) -> None:
    """Wait until the server has written the task runs it was told of.

    It records them from a queue; the number is final once nothing is unfinished and it
    has stood still for longer than the queue is flushed.
    """
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    last, still_since = -1, time.monotonic()
    while time.monotonic() < deadline:
        total, open_ = _count(api, {}), _count(api, UNFINISHED)
        if total != last or open_ > abandoned:
            last, still_since = total, time.monotonic()
        elif time.monotonic() - still_since > 1.5:
            return
        time.sleep(0.25)


def _count(api: str, body: dict[str, Any]) -> int:
    request = urllib.request.Request(
        f"{api}/task_runs/count",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.read())
    except (OSError, ValueError):
        return -1


def _healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _terminate(pid: int) -> None:
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(10)
        except psutil.TimeoutExpired:
            process.kill()
