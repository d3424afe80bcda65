"""Runs one service in the foreground, for systemd or Docker Compose.

Run as ``python -P -m coinml_ops.stack prefect|mlflow|metrics|worker-network|worker-gpu``. Ports
and hosts are options; COINML_HOME and COINML_POSTGRES are read from the environment.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError
from coinml.runtime.home import home
from coinml.runtime.proxies import keep_loopback_direct
from coinml.runtime.settings import Settings
from coinml_ops.access.password import VARIABLE, ensure_password, read_password
from coinml_ops.stack import running_processes
from coinml_ops.stack.dead_runs import crash_dead_runs
from coinml_ops.stack.hanging import HangWatch
from coinml_ops.stack.health import Api
from coinml_ops.stack.postgres import Databases, checked
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import (
    LOOPBACK,
    MARK,
    METRICS,
    MLFLOW,
    PREFECT,
    SERVICE,
    Service,
    services,
)
from coinml_ops.stack.shutdown import CHILD_GRACE_S, stop_service
from coinml_ops.upkeep.moved_home import check_place
from coinml_ops.work_pool import QUEUES

if TYPE_CHECKING:
    import psutil

NAMES = (PREFECT, MLFLOW, METRICS, *(f"worker-{queue}" for queue in QUEUES))


def main() -> None:
    """Run the service that is named, until it ends or SIGTERM arrives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("service", choices=NAMES)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    parser.add_argument("--metrics-port", type=int, default=4201)
    parser.add_argument("--allow-host", action="append", default=[])
    options = parser.parse_args()
    keep_loopback_direct(options.host)
    if options.host not in LOOPBACK and not os.environ.get(VARIABLE):
        parser.error(
            f"--host {options.host} is for other machines: set {VARIABLE}, which they need, too "
            "(`coinml up --print` writes it to data/access.env)"
        )
    try:
        check_place(Settings())
    except InvalidInputError as err:
        sys.exit(f"error: {err}")
    ensure_password(home() / "data")
    postgres = os.environ.get("COINML_POSTGRES", "")
    stack = Stack(
        id=f"{options.service}-{os.getpid()}",
        home=str(home()),
        host=options.host,
        prefect_port=options.prefect_port,
        mlflow_port=options.mlflow_port,
        metrics_port=options.metrics_port,
        names=tuple(options.allow_host),
        postgres=checked(postgres) if postgres else "",
        ledger_url=os.environ.get("COINML_LEDGER_URL", ""),
    )
    if stack.postgres:
        Databases(stack.postgres).create()
    (Path(stack.home) / "data" / "prefect").mkdir(parents=True, exist_ok=True)
    service = next(one for one in services(stack) if one.name == options.service)
    sys.exit(_run(stack, service))


def _run(stack: Stack, service: Service) -> int:
    """Run a service until it ends or SIGTERM arrives; the runs of a worker are stopped before it.

    One that hangs is replaced.
    """
    environment = _environment(service)
    api = Api(
        environment.get("PREFECT_API_URL", stack.prefect_api),
        read_password(Path(stack.home) / "data"),
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while service.needs is not None and not api.answers(service.needs):
        if stop.wait(1.0):
            return 0
    while True:
        if service.queue is not None:
            crash_dead_runs(service.queue, api)
        running = subprocess.Popen(service.command, env=environment, start_new_session=True)
        process = Process.of(running.pid)
        watch = HangWatch(service, api)
        find = partial(_left, running, environment)
        while running.poll() is None and not watch.hangs() and not stop.wait(0.5):
            pass
        if stop.is_set():
            stop_service(service, process, find, api=api)
            return 0
        # If it hangs, this process stays, so that systemd does not end a worker's flow runs, too.
        hangs = running.poll() is None
        if hangs:
            running.kill()
            running.wait()
        if service.queue is None:
            # A child of a server may hold its port.
            running_processes.terminate(find, grace_s=CHILD_GRACE_S)
        if not hangs:
            return running.returncode


def _left(running: subprocess.Popen[bytes], environment: dict[str, str]) -> list[psutil.Process]:
    # A process that has ended remains as a zombie until it is reaped.
    running.poll()
    return running_processes.of_stack(environment[MARK], service=environment[SERVICE])


def _environment(service: Service) -> dict[str, str]:
    """The service's environment; in a container, the servers' addresses are not this machine's."""
    environment = service.full_environment()
    for name in {"PREFECT_API_URL", "MLFLOW_TRACKING_URI"} & set(service.environment):
        environment[name] = os.environ.get(name) or environment[name]
    return environment


if __name__ == "__main__":
    main()
