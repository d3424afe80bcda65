"""A Prefect server that the commands of one COINML_HOME share while `coinml up` is not running.

Prefect's ephemeral server times out on a slow first start and loses most task-run rows when the
process ends. This one has its database in `COINML_HOME/data/prefect` and ends with its last user.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from coinml.errors import LocalError
from coinml.runtime.atomic_files import write_whole
from coinml.runtime.process_identity import process_start
from coinml_ops.access.password import PREFECT_SERVER, auth_string, ensure_password
from coinml_ops.home_databases import PREFECT, check_database
from coinml_ops.prefect_server import users
from coinml_ops.stack import health
from coinml_ops.stack.services import NOT_FOR_SERVERS, QUIET, RECORDER

START_TIMEOUT_S = 180.0

SERVER_ENVIRONMENT = {
    **QUIET,
    **RECORDER,
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    # It has no deployments: there is nothing to schedule, trigger or mark as late.
    "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_ENABLED": "false",
}


class LocalPrefect:
    """The server of a folder, and the processes that use it.

    `start` returns at once; `wait` blocks until the API answers. A server takes ten to twenty
    seconds to start, in which the caller can do work that needs no Prefect.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.users = folder / "users"
        self.record = folder / "server.json"
        self.log = folder / "server.log"

    @property
    def password(self) -> str:
        """The password of its home's servers, of which it is one."""
        return ensure_password(self.folder.parent)

    def start(self) -> str:
        """Join the running server or start one.

        Returns:
            The address of its API.

        Raises:
            LocalError: Its database is damaged.
        """
        from filelock import FileLock

        check_database(self.folder / "prefect.db", PREFECT)
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "lock"):
            users.join(self.users)
            running = self._running()
            if running is None:
                running = self._launch()
                write_whole(self.record, json.dumps(running))
        return f"http://127.0.0.1:{running['port']}/api"

    def wait(self, api: str) -> None:
        """Block until the API answers.

        Raises:
            LocalError: If the server ended or did not answer in time; names its log.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if health.answers(f"{api}/health"):
                return
            if self._running() is None:
                break
            time.sleep(0.2)
        raise LocalError(f"the local Prefect server did not start; its log is {self.log}")

    def leave(self) -> None:
        """Stop using the server; the last user stops it."""
        from filelock import FileLock

        with FileLock(self.folder / "lock"):
            users.leave(self.users)
            running = self._running()
            if running is None or users.live_users(self.users):
                return
            self.record.unlink(missing_ok=True)
            _terminate(int(running["pid"]))

    def make_way(self) -> None:
        """Stop an unused server, so that another one can open the same database.

        Raises:
            LocalError: Commands use it.
        """
        from filelock import FileLock

        if not self.record.is_file():
            return
        with FileLock(self.folder / "lock"):
            in_use_by = users.live_users(self.users)
            if in_use_by:
                raise LocalError(
                    "commands of coinml are using a local Prefect server (process "
                    f"{', '.join(map(str, in_use_by))}): wait until they have finished"
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
            PREFECT_SERVER: auth_string(self.password),
            "PREFECT_HOME": str(self.folder),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
                f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}"
            ),
        }
        for name in ("PREFECT_API_URL", *NOT_FOR_SERVERS):
            environment.pop(name, None)
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "coinml_ops.prefect_server.process"),
                    *("--port", str(port), "--users", str(self.users)),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the command, which still has to report its runs to the server.
                start_new_session=True,
            )
        return {"pid": process.pid, "started": process_start(process.pid), "port": port}


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
