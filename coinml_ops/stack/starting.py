"""A stack is brought up and down."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError, LocalError
from coinml_ops.stack import health, ports, processes, record
from coinml_ops.stack.ending import end_worker
from coinml_ops.stack.postgres import Databases
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import MARK, Service, services

if TYPE_CHECKING:
    import psutil

SERVER_GRACE_S = 15.0
UP_TIMEOUT_S = 240.0
DOWN_TIMEOUT_S = 120.0
POLL_S = 0.3
LOOPBACK = "127.0.0.1"


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Within it, no other process brings this home's stack up or down."""
    from filelock import FileLock

    record.stack_dir(home).mkdir(parents=True, exist_ok=True)
    with FileLock(record.stack_dir(home) / "lock"):
        yield


def begin(
    home: Path,
    *,
    host: str | None = None,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    postgres: str | None = None,
    ledger_url: str = "",
    dataset: str | None = None,
) -> tuple[Stack, bool]:
    """Have a supervisor at work on the stack of a home; it need not answer yet.

    Args:
        home: COINML_HOME.
        host: The address to bind to; None: loopback.
        prefect_port: Prefect's port; None: as before, the usual one, or any that is free.
        mlflow_port: MLflow's.
        postgres: A PostgreSQL server's URL; "" for none; None for what was used before.
        ledger_url: The workers' ledger where there is no such server.
        dataset: What the scheduled deployments work on; None for what was said before.

    Returns:
        The stack, and whether it was up before.

    Raises:
        InvalidInputError: A port is in use, or what runs is set up otherwise.
        LocalError: PostgreSQL refuses.
    """
    before = record.read(home)
    if before is not None and before.up():
        stack = _as_asked(before, host, prefect_port, mlflow_port, postgres, dataset)
        record.update(home, dataset=stack.dataset)
        # Whatever waits for its turn to come back need not wait any longer.
        _signal(before, signal.SIGHUP)
        return stack, True
    running = before is not None and any(one.alive() for one in before.services.values())
    if before is not None and running:
        # Its supervisor was killed; another takes over what still runs, as it was set up.
        stack = _as_asked(before, host, prefect_port, mlflow_port, postgres, dataset)
    else:
        host = host or LOOPBACK
        stack = Stack(
            # What an earlier one has left running is known by it.
            id=before.id if before else uuid.uuid4().hex,
            home=str(home),
            host=host,
            prefect_port=ports.choose(
                host, prefect_port, before.prefect_port if before else 4200, option="--prefect-port"
            ),
            mlflow_port=ports.choose(
                host, mlflow_port, before.mlflow_port if before else 5000, option="--mlflow-port"
            ),
            postgres=(before.postgres if before else "") if postgres is None else postgres,
            ledger_url=ledger_url,
            dataset=(before.dataset if before else "") if dataset is None else dataset,
        )
        if stack.postgres:
            Databases(stack.postgres).make()
    record.write(stack)
    stack.logs.mkdir(parents=True, exist_ok=True)
    (Path(stack.home) / "data" / "prefect").mkdir(parents=True, exist_ok=True)
    _launch(stack)
    return stack, running


def wait_until_up(
    stack: Stack, names: tuple[str, ...] = (), *, said: Callable[[str], None] = lambda _name: None
) -> Stack:
    """Block until services answer: all, or those that are named.

    Args:
        stack: What was begun.
        names: Which services; none named: all.
        said: Is told the name of each as it answers.

    Raises:
        LocalError: One did not, or its supervisor ended; names the log.
    """
    waiting = [one for one in services(stack) if not names or one.name in names]
    deadline = time.monotonic() + UP_TIMEOUT_S
    home = Path(stack.home)
    begun = time.monotonic()
    while time.monotonic() < deadline:
        now = record.read(home) or stack
        for one in list(waiting):
            if health.is_up(now, one, now.services.get(one.name)):
                waiting.remove(one)
                said(one.name)
        if not waiting:
            return now
        if not now.up() and time.monotonic() - begun > 10:
            raise LocalError(f"the supervisor ended; its log is {stack.logs / 'supervisor.log'}")
        time.sleep(POLL_S)
    logs = ", ".join(str(stack.logs / f"{one.name}.log") for one in waiting)
    raise LocalError(f"no answer within {UP_TIMEOUT_S:.0f} s; see {logs}")


def end(home: Path) -> tuple[str, ...]:
    """End a stack's processes, and those that they have started.

    Returns:
        The services that ran.

    Raises:
        LocalError: A process is left that cannot be ended.
    """
    stack = record.read(home)
    if stack is None:
        return ()
    ran = tuple(name for name, one in stack.services.items() if one.alive())
    if stack.up():
        _signal(stack, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_TIMEOUT_S
        while stack.up() and time.monotonic() < deadline:
            time.sleep(POLL_S)
    # What a supervisor that was killed left behind, workers first.
    for one in reversed(services(stack)):
        _end_service(stack, one)
    processes.end(lambda: processes.marked(stack.id), grace_s=SERVER_GRACE_S)
    left = processes.marked(stack.id)
    if left:
        raise LocalError(f"still running: {', '.join(str(one.pid) for one in left)}")
    record.update(home, supervisor=None, services={})
    return ran


def _end_service(stack: Stack, service: Service) -> None:
    def find() -> list[psutil.Process]:
        return processes.marked(stack.id, service=service.name)

    process = stack.services.get(service.name)
    if service.queue is None:
        processes.end(find, grace_s=SERVER_GRACE_S)
    else:
        alive = process is not None and process.alive()
        end_worker(process.pid if process and alive else None, find, api=stack.prefect_api)


def _as_asked(
    before: Stack,
    host: str | None,
    prefect_port: int | None,
    mlflow_port: int | None,
    postgres: str | None,
    dataset: str | None,
) -> Stack:
    """What runs, with another dataset if one is given.

    Raises:
        InvalidInputError: It cannot be had without a restart.
    """
    asked = {
        "--host": (host, before.host),
        "--prefect-port": (prefect_port, before.prefect_port),
        "--mlflow-port": (mlflow_port, before.mlflow_port),
    }
    for option, (given, runs) in asked.items():
        if given is not None and given != runs:
            raise InvalidInputError(f"{option} {given}: it runs with {runs}; `coinml down` first")
    if postgres is not None and postgres != before.postgres:
        raise InvalidInputError("--postgres: it runs on another database; `coinml down` first")
    return before if dataset is None else dataclasses.replace(before, dataset=dataset)


def _launch(stack: Stack) -> None:
    with (stack.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "coinml_ops.stack.supervisor", stack.home],
            cwd=stack.folder,
            env={**os.environ, MARK: stack.id},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Until it has written so itself, whoever looks is to see that somebody is at work.
    supervisor = Process.of(process.pid)
    while supervisor.alive():
        now = record.read(Path(stack.home))
        if now is not None and now.supervisor == supervisor:
            return
        time.sleep(0.05)
    raise LocalError(f"the supervisor did not start; its log is {stack.logs / 'supervisor.log'}")


def _signal(stack: Stack, number: signal.Signals) -> None:
    if stack.supervisor is not None and stack.supervisor.alive():
        os.kill(stack.supervisor.pid, number)
