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
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from coinml.errors import InvalidInputError, LocalError
from coinml_ops.access.password import VARIABLE, ensure_password, stored_password
from coinml_ops.home_databases import check_database, databases
from coinml_ops.stack import health, ports, record, running_processes
from coinml_ops.stack.postgres import Databases
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import MARK, METRICS, services
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


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """Settings of a stack that a user asks for.

    Attributes:
        host: The address to bind to; None: the running stack's, or loopback.
        prefect_port: Prefect's port; None: the previous one, the default, or any free port.
        mlflow_port: MLflow's port; None as above.
        metrics_port: Port of the metrics; None as above.
        postgres: A PostgreSQL server's URL; "": none; None: the previous one.
        ledger_url: The workers' ledger if there is no such server.
        dataset: Dataset of the scheduled deployments; None: the previous one.
    """

    host: str | None = None
    prefect_port: int | None = None
    mlflow_port: int | None = None
    metrics_port: int | None = None
    postgres: str | None = field(default=None, repr=False)
    ledger_url: str = field(default="", repr=False)
    dataset: str | None = None


def start(home: Path, options: StackOptions | None = None) -> tuple[Stack, bool]:
    """Start the supervisor of a home's stack, which starts the services; does not wait for them.

    Args:
        home: COINML_HOME.
        options: Settings, where they are not to be as before.

    Returns:
        The stack, and whether it was running before.

    A running stack whose servers ask for no password is stopped and started again.

    Raises:
        InvalidInputError: A port is in use, or the running stack has other settings.
        LocalError: PostgreSQL refuses, a database is damaged, or this installation is older than
            its code.
    """
    if not entry_points(group="mlflow.app", name="coinml"):
        raise LocalError("coinml is installed from an earlier version: install it again (`make`)")
    options = options or StackOptions()
    before = record.read(home)
    running = before is not None and _runs(before)
    if before is not None and running and not before.guarded:
        before = _with_dataset(before, options)
        stop(home)
        options = _same_settings(before, options)
        running = False
    if before is not None and running:
        stack = _with_dataset(before, options)
        ensure_password(home / "data")
        _kill_useless_supervisor(before)
        if before.up():
            record.update(home, dataset=stack.dataset)
            # Services that wait for their next restart are restarted at once.
            _signal(before, signal.SIGHUP)
            return stack, True
        # Without a supervisor, services still run: the new supervisor adopts them.
    else:
        if before is not None:
            # A killed server's children outlive it, and hold its port.
            running_processes.terminate(
                partial(running_processes.of_stack, before.id), grace_s=SERVER_GRACE_S
            )
        stack = _new_stack(home, before, options)
        if not stack.postgres:
            # The servers take an empty file for a new database, and forget all that was in it.
            for name, path in databases(home).items():
                check_database(path, name)
        ensure_password(home / "data")
        if stack.postgres:
            Databases(stack.postgres).create()
    record.write(stack)
    stack.logs.mkdir(parents=True, exist_ok=True)
    (Path(stack.home) / "data" / "prefect").mkdir(parents=True, exist_ok=True)
    _launch(stack)
    return stack, running


def is_open(home: Path) -> bool:
    """Whether a stack runs whose servers ask for no password; `start` replaces it."""
    stack = record.read(home)
    return stack is not None and _runs(stack) and not stack.guarded


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
            partial(running_processes.of_stack, stack.id, service=service.name),
            api=health.api_of(stack),
        )
    running_processes.terminate(
        partial(running_processes.of_stack, stack.id), grace_s=SERVER_GRACE_S
    )
    left = running_processes.of_stack(stack.id)
    if left:
        raise LocalError(f"still running: {', '.join(str(one.pid) for one in left)}")
    record.update(home, supervisor=None, services={})
    return ran


def _new_stack(home: Path, before: Stack | None, options: StackOptions) -> Stack:
    """A stack with the settings asked for, and otherwise those of the stack before it.

    Raises:
        InvalidInputError: A port that is asked for is in use.
    """
    # The same id again: processes that an earlier stack left behind carry it.
    last = before or Stack(id=uuid.uuid4().hex, home=str(home))
    host = options.host or LOOPBACK
    return Stack(
        id=last.id,
        home=str(home),
        host=host,
        prefect_port=ports.choose(
            host, options.prefect_port, last.prefect_port, option="--prefect-port"
        ),
        mlflow_port=ports.choose(
            host, options.mlflow_port, last.mlflow_port, option="--mlflow-port"
        ),
        metrics_port=ports.choose(
            host, options.metrics_port, last.metrics_port, option="--metrics-port"
        ),
        postgres=last.postgres if options.postgres is None else options.postgres,
        ledger_url=options.ledger_url,
        dataset=last.dataset if options.dataset is None else options.dataset,
        guarded=True,
    )


def _runs(stack: Stack) -> bool:
    return stack.up() or any(one.alive() for one in stack.services.values())


def _same_settings(before: Stack, options: StackOptions) -> StackOptions:
    """The options, and where they say nothing the settings of a stack that was just stopped."""
    return dataclasses.replace(
        options,
        host=options.host or before.host,
        prefect_port=options.prefect_port or before.prefect_port,
        mlflow_port=options.mlflow_port or before.mlflow_port,
        metrics_port=options.metrics_port or before.metrics_port,
        ledger_url=options.ledger_url or before.ledger_url,
    )


def _with_dataset(running: Stack, options: StackOptions) -> Stack:
    """The running stack, with another dataset if one is given.

    Raises:
        InvalidInputError: Another setting is asked for, which needs a restart.
    """
    asked = {
        "--host": (options.host, running.host),
        "--prefect-port": (options.prefect_port, running.prefect_port),
        "--mlflow-port": (options.mlflow_port, running.mlflow_port),
        "--metrics-port": (options.metrics_port, running.metrics_port),
    }
    for option, (given, current) in asked.items():
        if given is not None and given != current:
            raise InvalidInputError(
                f"{option} {given}: the running stack has {current}; `coinml down` first"
            )
    if options.postgres is not None and options.postgres != running.postgres:
        raise InvalidInputError(
            "--postgres: the running stack uses another database; `coinml down` first"
        )
    chosen = os.environ.get(VARIABLE)
    if running.guarded and chosen and chosen != stored_password(Path(running.home) / "data"):
        raise InvalidInputError(
            f"{VARIABLE}: the running stack has another password; `coinml down` first"
        )
    if options.dataset is None:
        return running
    return dataclasses.replace(running, dataset=options.dataset)


def _kill_useless_supervisor(stack: Stack) -> None:
    """Kill a supervisor that is stopped, or that another version started; its services go on.

    Another version's would restart a service by a module name that this version may no longer
    have, and start none that this version has added.
    """
    import psutil

    if stack.supervisor is None:
        return
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(stack.supervisor.pid)
        is_of_this_version = SUPERVISOR in process.cmdline() and METRICS in stack.services
        if is_of_this_version and process.status() != psutil.STATUS_STOPPED:
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
