"""A stack for a test: `coinml up` in a temporary COINML_HOME, on free ports."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from coinml_ops.access.password import authorization, client_variables, stored_password
from coinml_ops.stack import health, record, running_processes
from coinml_ops.stack.record import Stack
from coinml_ops.stack.services import services

COMMAND = str(Path(sys.executable).parent / "coinml")
PREFECT = str(Path(sys.executable).parent / "prefect")
SERVICES = {"prefect", "mlflow", "metrics", "worker-network", "worker-gpu"}


@dataclass(frozen=True)
class CoinmlStack:
    """A COINML_HOME, and coinml commands in it.

    Attributes:
        home: COINML_HOME.
        variables: Additional environment variables of the commands.
        ports: Prefect's and MLflow's.
        metrics_port: That of the metrics.
    """

    home: Path
    variables: dict[str, str] = field(default_factory=dict)
    ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    metrics_port: int = field(default_factory=lambda: free_port())

    @property
    def environment(self) -> dict[str, str]:
        own = {
            k: v for k, v in os.environ.items() if not k.startswith(("COINML", "PREFECT", "MLFLOW"))
        }
        return own | {"COINML_HOME": str(self.home)} | self.variables

    def coinml(self, *arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.home,
            env=self.environment,
            timeout=timeout,
        )

    def answer(self, *arguments: str) -> Any:
        """A command's output with --json; it must succeed."""
        done = self.coinml(*arguments, "--json")
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"
        return json.loads(done.stdout)

    def up(self, *options: str) -> Any:
        prefect, mlflow = map(str, self.ports)
        ports = ["--prefect-port", prefect, "--mlflow-port", mlflow]
        return self.answer("up", *ports, "--metrics-port", str(self.metrics_port), *options)

    def stack(self) -> Stack:
        found = record.read(self.home)
        assert found is not None
        return found

    def processes(self) -> list[psutil.Process]:
        """All living processes of the stack."""
        return running_processes.of_stack(self.stack().id)

    def are_up(self) -> set[str]:
        """Names of the services that answer."""
        now = self.stack()
        return {
            one.name for one in services(now) if health.is_up(now, one, now.services.get(one.name))
        }

    def api(self, path: str, body: Any = None) -> Any:
        """The answer of Prefect's server; POST if there is a body."""
        return json.loads(self.get(f"{self.stack().prefect_api}{path}", body=body))

    @property
    def password(self) -> str:
        """The password of its servers."""
        return stored_password(self.home / "data")

    @property
    def signed_in(self) -> dict[str, str]:
        """The header with which its servers answer."""
        return {"Authorization": authorization(self.password)}

    @property
    def client_environment(self) -> dict[str, str]:
        """The environment of a program that is not coinml's and uses its servers."""
        stack = self.stack()
        return self.environment | {
            "PREFECT_API_URL": stack.prefect_api,
            "MLFLOW_TRACKING_URI": stack.mlflow_url,
            **client_variables(self.password),
        }

    def get(self, url: str, *, body: Any = None) -> bytes:
        """The answer of one of its servers; POST if there is a body."""
        return fetch(url, body=body, headers=self.signed_in)

    def flow_runs(self, **wanted: Any) -> list[dict[str, Any]]:
        """Flow runs, newest first."""
        found: list[dict[str, Any]] = self.api(
            "/flow_runs/filter", {"sort": "START_TIME_DESC", **wanted}
        )
        return found

    def start_run(self, deployment: str, **settings: Any) -> str:
        """Start a deployment's run; returns the flow run's id."""
        flow, name = deployment.split("/")
        found = self.api(f"/deployments/name/{flow}/{name}")
        return str(self.api(f"/deployments/{found['id']}/create_flow_run", settings)["id"])

    def run_state(self, run_id: str) -> str:
        return str(self.api(f"/flow_runs/{run_id}")["state_type"])

    def logs(self) -> str:
        """The last lines of every log, for failure messages."""
        folder = self.home / "data" / "logs"
        return "\n".join(
            f"== {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted(folder.glob("*.log"))
        )


@contextmanager
def coinml_stack(folder: Path) -> Iterator[CoinmlStack]:
    """A home in a folder, whose stack is stopped when the test ends."""
    here = CoinmlStack(folder / "home")
    here.home.mkdir()
    try:
        yield here
    finally:
        here.coinml("down")


def fetch(url: str, *, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data=data, headers={"Content-Type": "application/json", **(headers or {})}
    )
    for left in reversed(range(10)):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as err:
            # SQLite was busy and nothing was changed; Prefect's client retries as well.
            if err.code != 503 or not left:
                raise
            time.sleep(1)
    raise AssertionError


def status(url: str, **headers: str) -> tuple[int, dict[str, str]]:
    """The status of an answer, and its headers with lower-case names."""
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=30
        ) as got:
            return got.status, {name.lower(): value for name, value in got.headers.items()}
    except urllib.error.HTTPError as err:
        return err.code, {name.lower(): value for name, value in err.headers.items()}


def wait_for(what: Callable[[], Any], *, seconds: float, said: Callable[[], str] = str) -> Any:
    """Poll until `what` returns something true, and return it; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s\n{said()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
