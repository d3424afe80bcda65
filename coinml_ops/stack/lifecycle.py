"""Starts and stops the stack of a COINML_HOME: the work of `coinml up` and `coinml down`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from coinml.errors import InvalidInputError, LocalError
from coinml_ops.stack import health, ports, processes, record
from coinml_ops.stack.postgres import Databases
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import MARK, services
from coinml_ops.stack.shutdown import SERVER_GRACE_S, stop_service

UP_TIMEOUT_S = 240.0
DOWN_TIMEOUT_S = 120.0
POLL_S = 0.3
LOOPBACK = "127.0.0.1"
SUPERVISOR = "coinml_ops.stack.supervisor"


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """While it is held, no other process starts or stops this home's stack."""
    from filelock import FileLock

    record.stack_dir(home).mkdir(parents=True, exist_ok=True)
    with FileLock(record.stack_dir(home) / "lock"):
        yield


def start(
    home: Path,
    *,
    host: str | None = None,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    postgres: str | None = None,
    ledger_url: str = "",
    dataset: str | None = None,
) -> tuple[Stack, bool]:
    """Start the supervisor of a home's stack, which starts the services; does not wait for them.

    Args:
        home: COINML_HOME.
        host: The address to bind to; None: loopback.
        prefect_port: Prefect's port; None: the previous one, the default, or any free port.
        mlflow_port: MLflow's port; None as above.
        postgres: A PostgreSQL server's URL; "": none; None: the previous one.
        ledger_url: The workers' ledger if there is no such server.
        dataset: Dataset of the scheduled deployments; None: the previous one.

    Returns:
        The stack, and whether it was running before.

    Raises:
        InvalidInputError: A port is in use, or the running stack has other settings.
        LocalError: PostgreSQL refuses.
    """
    before = record.read(home)
    running = before is not None and (
        before.up() or any(one.alive() for one in before.services.values())
    )
    if before is not None and running:
        stack = _with_dataset(before, host, prefect_port, mlflow_port, postgres, dataset)
        _kill_outdated_supervisor(before)
        if before.up():
            record.update(home, dataset=stack.dataset)
            # Services that wait for their next restart are restarted at once.
            _signal(before, signal.SIGHUP)
            return stack, True
        # Without a supervisor, services still run: the new supervisor adopts them.
    else:
        host = host or LOOPBACK
        stack = Stack(
            # The same id again: processes that an earlier stack left behind carry it.
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
            Databases(stack.postgres).create()
    record.write(stack)
    stack.logs.mkdir(parents=True, exist_ok=True)
    (Path(stack.home) / "data" / "prefect").mkdir(parents=True, exist_ok=True)
    _launch(stack)
    return stack, running


def wait_until_up(
    stack: Stack,
    names: tuple[str, ...] = (),
    *,
    on_up: Callable[[str], None] = lambda _name: None,
) -> Stack:
    """Block until services answer.

    Args:
        stack: A stack that was started.
        names: Which services; none named: all.
        on_up: Called with the name of each service when it first answers.

    Returns:
        The stack as it is on record now, with its processes.

    Raises:
        LocalError: A service did not answer in time, or the supervisor ended; names the log.
    """
    waiting = [one for one in services(stack) if not names or one.name in names]
    began = time.monotonic()
    home = Path(stack.home)
    while time.monotonic() - began < UP_TIMEOUT_S:
        now = record.read(home) or stack
        for one in list(waiting):
            if health.is_up(now, one, now.services.get(one.name)):
                waiting.remove(one)
                on_up(one.name)
        if not waiting:
            return now
        if not now.up() and time.monotonic() - began > 10:
            raise LocalError(f"the supervisor ended; its log is {stack.logs / 'supervisor.log'}")
        time.sleep(POLL_S)
    logs = ", ".join(str(stack.logs / f"{one.name}.log") for one in waiting)
    raise LocalError(f"no answer within {UP_TIMEOUT_S:.0f} s; see {logs}")


def stop(home: Path) -> tuple[str, ...]:
    """Stop a stack's processes and their children.

    Returns:
        The services that were running.

    Raises:
        LocalError: A process could not be ended.
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

    # A supervisor that was killed leaves its services running. Workers end before the servers.
    for service in reversed(services(stack)):
        stop_service(
            service,
            stack.services.get(service.name),
            partial(processes.marked, stack.id, service=service.name),
            api=stack.prefect_api,
        )
    processes.terminate(partial(processes.marked, stack.id), grace_s=SERVER_GRACE_S)
    left = processes.marked(stack.id)
    if left:
        raise LocalError(f"still running: {', '.join(str(one.pid) for one in left)}")
    record.update(home, supervisor=None, services={})
    return ran


def _with_dataset(
    before: Stack,
    host: str | None,
    prefect_port: int | None,
    mlflow_port: int | None,
    postgres: str | None,
    dataset: str | None,
) -> Stack:
    """The running stack, with another dataset if one is given.

    Raises:
        InvalidInputError: Another setting is asked for, which needs a restart.
    """
    asked = {
        "--host": (host, before.host),
        "--prefect-port": (prefect_port, before.prefect_port),
        "--mlflow-port": (mlflow_port, before.mlflow_port),
    }
    for option, (given, current) in asked.items():
        if given is not None and given != current:
            raise InvalidInputError(
                f"{option} {given}: the running stack has {current}; `coinml down` first"
            )
    if postgres is not None and postgres != before.postgres:
        raise InvalidInputError(
            "--postgres: the running stack uses another database; `coinml down` first"
        )
    return before if dataset is None else dataclasses.replace(before, dataset=dataset)


def _kill_outdated_supervisor(stack: Stack) -> None:
    """Kill a supervisor that was started from another version's module; its services go on.

    It would restart a service by a module name that this version may no longer have.
    """
    import psutil

    if stack.supervisor is None:
        return
    with contextlib.suppress(psutil.Error):
        if SUPERVISOR in psutil.Process(stack.supervisor.pid).cmdline():
            return
        _signal(stack, signal.SIGKILL)
        while stack.supervisor.alive():
            time.sleep(0.05)


def _launch(stack: Stack) -> None:
    with (stack.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", SUPERVISOR, stack.home],
            cwd=stack.folder,
            env={**os.environ, MARK: stack.id},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    supervisor = Process.of(process.pid)
    # Once the supervisor has recorded itself, other commands see that the stack is up.
    while supervisor.alive():
        now = record.read(Path(stack.home))
        if now is not None and now.supervisor == supervisor:
            return
        time.sleep(0.05)
    raise LocalError(f"the supervisor did not start; its log is {stack.logs / 'supervisor.log'}")


def _signal(stack: Stack, number: signal.Signals) -> None:
    if stack.supervisor is not None and stack.supervisor.alive():
        os.kill(stack.supervisor.pid, number)
