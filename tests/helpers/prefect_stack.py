"""A Prefect server and workers as processes of a test, and requests to the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from coinml.runtime.process_identity import process_start
from coinml_ops.access.password import (
    PREFECT_CLIENT,
    PREFECT_SERVER,
    auth_string,
    authorization,
)
from coinml_ops.stack.services import QUIET, RECORDER

BIN = Path(sys.executable).parent
PASSWORD = "of-this-test-0123456789"
TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class PrefectStack:
    """A COINML_HOME with a Prefect server on loopback and any number of workers.

    The server is the one that `coinml up` starts, with all its services.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "data" / "prefect"
        self.users = self.folder / "test-users"
        self.logs = home / "data" / "logs"
        for folder in (self.users, self.logs):
            folder.mkdir(parents=True, exist_ok=True)
        # The server ends with this process, even if it is killed.
        (self.users / str(os.getpid())).write_text(process_start(os.getpid()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.server: subprocess.Popen[bytes] | None = None
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.more: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        foreign = ("COINML", "PREFECT", "MLFLOW")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        return inherited | {
            "COINML_HOME": str(self.home),
            **QUIET,
            **RECORDER,
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(self.folder),
            "PREFECT_SERVER_UI_ENABLED": "false",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
                f"sqlite+aiosqlite:///{self.folder / 'prefect.db'}"
            ),
        }

    @property
    def client_environment(self) -> dict[str, str]:
        return self.environment | {
            "PREFECT_API_URL": self.api,
            PREFECT_CLIENT: auth_string(PASSWORD),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            **self.more,
        }

    def start_server(self) -> None:
        self.server = self._start(
            "server",
            [
                *(sys.executable, "-P", "-m", "coinml_ops.prefect_server.process"),
                *("--port", str(self.port), "--users", str(self.users)),
            ],
            self.environment | {PREFECT_SERVER: auth_string(PASSWORD)},
        )
        wait_for(self._healthy, 120, "the server to answer")

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()

    def start_worker(self, name: str, *queues: str) -> subprocess.Popen[bytes]:
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "prefect", "worker", "start"]
        command += ["--pool", "coinml", "--type", "process", "--name", name]
        for queue in queues:
            command += ["--work-queue", queue]
        # A folder without code and state: a worker may be started anywhere.
        self.workers[name] = self._start(name, command, self.client_environment, cwd=folder)
        return self.workers[name]

    def coinml(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        run = subprocess.run(
            [str(BIN / "coinml"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=self.client_environment,
        )
        assert run.returncode == 0, run.stderr
        return run

    def stop(self) -> None:
        """End every process of the stack, flow runs included."""
        left = [child for worker in self.workers.values() for child in processes_of(worker)]
        for worker in self.workers.values():
            if worker.poll() is None:
                worker.terminate()
        for worker in self.workers.values():
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
        for process in left:
            kill(process)
        if self.server is not None and self.server.poll() is None:
            self.server.terminate()
            try:
                self.server.wait(20)
            except subprocess.TimeoutExpired:
                self.kill_server()

    # -- requests to the server

    def ask(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.api}/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": authorization(PASSWORD),
            },
            method=method,
        )
        for left in reversed(range(10)):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    text = answer.read()
                break
            except urllib.error.HTTPError as err:
                # SQLite was busy; Prefect's client retries as well.
                if err.code != 503 or not left:
                    raise
                time.sleep(1)
            except TimeoutError:
                if not left:
                    raise
        return json.loads(text) if text else None

    def deployment(self, name: str) -> dict[str, Any]:
        return dict(self.ask(f"deployments/name/{name}"))

    def change(self, name: str, **fields: Any) -> None:
        self.ask(f"deployments/{self.deployment(name)['id']}", fields, method="PATCH")

    def without_triggers(self) -> None:
        """Disable the automations that start deployments."""
        for automation in self.ask("automations/filter", {}):
            if any(action["type"] == "run-deployment" for action in automation["actions"]):
                self.ask(f"automations/{automation['id']}", {"enabled": False}, method="PATCH")

    def run(self, name: str, **parameters: Any) -> str:
        """Start a deployment's run with some parameters; returns the run's id."""
        found = self.deployment(name)
        body = {
            "parameters": found["parameters"] | parameters,
            # Makes a retry safe: the first request may have arrived although its answer did not.
            "idempotency_key": str(uuid.uuid4()),
        }
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", body)["id"])

    def flow_run(self, run_id: str) -> dict[str, Any]:
        return dict(self.ask(f"flow_runs/{run_id}"))

    def flow_runs(self) -> list[dict[str, Any]]:
        """Every run that was due by now, earliest first."""
        runs = self.ask("flow_runs/filter", {"sort": "START_TIME_ASC", "limit": 200})
        return [run for run in runs if not is_planned(run)]

    def runs_of(self, deployment: str) -> list[dict[str, Any]]:
        wanted = self.deployment(deployment)["id"]
        return [run for run in self.flow_runs() if run["deployment_id"] == wanted]

    def slots_taken(self, deployment: str) -> int:
        return int(self.deployment(deployment)["global_concurrency_limit"]["active_slots"])

    def events(self, name: str) -> list[dict[str, Any]]:
        body = {"filter": {"event": {"name": [name]}}, "limit": 50}
        return list(self.ask("events/filter", body)["events"])

    def await_state(self, run_id: str, *states: str, within_s: float) -> dict[str, Any]:
        def reached() -> bool:
            return self.flow_run(run_id)["state_type"] in states

        try:
            wait_for(reached, within_s, f"a run to be {' or '.join(states)}")
        except AssertionError as err:
            raise AssertionError(
                f"{err}: {self.flow_run(run_id)['state']}\n{self.tail()}"
            ) from None
        return self.flow_run(run_id)

    def tail(self) -> str:
        """The last lines of every log."""
        return "\n".join(
            f"== {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-25:])
            for log in sorted(self.logs.glob("*.log"))
        )

    def _start(
        self, name: str, command: list[str], environment: dict[str, str], cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command,
                env=environment,
                cwd=cwd or self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _healthy(self) -> bool:
        assert self.server is not None
        assert self.server.poll() is None, self.tail()
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def prefect_stack(home: Path) -> Iterator[PrefectStack]:
    """A stack whose server is running; all its processes end with the context."""
    home.mkdir(parents=True, exist_ok=True)
    stack = PrefectStack(home)
    try:
        stack.start_server()
        yield stack
    finally:
        stack.stop()


def is_planned(run: dict[str, Any]) -> bool:
    """Whether a schedule has planned the run and it has not started."""
    return bool(run["state_type"] == "SCHEDULED" and run["auto_scheduled"])


def processes_of(worker: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The processes of a worker's flow runs."""
    try:
        return psutil.Process(worker.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(process: psutil.Process | subprocess.Popen[bytes]) -> None:
    """End a process as `kill -9` does."""
    try:
        process.send_signal(signal.SIGKILL)
        process.wait()
    except psutil.NoSuchProcess:
        pass


def wait_for(condition: Callable[[], Any], within_s: float, what: str) -> None:
    """Poll twice a second until a condition holds; fail after `within_s`."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:g} s for {what}"
        time.sleep(0.5)
