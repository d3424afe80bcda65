"""Starts the services of a stack, restarts those that die or hang, and stops all on SIGTERM.

Run as ``python -P -m coinml_ops.stack.supervisor HOME``. If the supervisor itself is killed, the
services go on; the next `coinml up` starts another supervisor, which adopts them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from coinml_ops.stack import health, record, running_processes
from coinml_ops.stack.dead_runs import crash_dead_runs
from coinml_ops.stack.hanging import HangWatch
from coinml_ops.stack.health import Api
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import Service, services
from coinml_ops.stack.shutdown import SERVER_GRACE_S, stop_service

if TYPE_CHECKING:
    import psutil

POLL_S = 0.5
FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 60.0
STABLE_S = 60.0
"""After a service has run for so long, its next restart has the first backoff again."""

MAX_LOG_BYTES = 20_000_000
"""A larger log is rotated, over the rotated one before it."""

logger = logging.getLogger(__name__)


class WatchedService:
    """A service, its process, and when it may be restarted."""

    def __init__(self, service: Service, process: Process | None, api: Api) -> None:
        self.service = service
        self.process = process
        self.restarts = 0 if process is None else process.restarts
        self.not_before = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self._child: subprocess.Popen[bytes] | None = None
        self._since = time.monotonic()
        self._api = api
        self._watch = HangWatch(service, api, adopted=process is not None)

    def alive(self) -> bool:
        """Whether it runs; reaps it if it was a child of this process."""
        if self._child is not None:
            self._child.poll()
        return self.process is not None and self.process.alive()

    def start(self, stack: Stack) -> None:
        """Start it, after ending what a previous process of a server has left behind."""
        if self.service.queue is None:
            # A server's child may still hold its port. A worker's children are flow runs, which
            # may finish.
            remains = running_processes.of_stack(stack.id, service=self.service.name)
            if remains:
                logger.warning("%s: ending %d leftovers", self.service.name, len(remains))
                running_processes.terminate(
                    lambda: running_processes.of_stack(stack.id, service=self.service.name),
                    grace_s=5,
                )
        log = stack.logs / f"{self.service.name}.log"
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                self.service.command,
                env=self.service.full_environment(),
                cwd=stack.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                # A signal to the supervisor's process group must not reach its services.
                start_new_session=True,
            )
        self.process = Process.of(self._child.pid, restarts=self.restarts)
        self._since = time.monotonic()
        self._watch = HangWatch(self.service, self._api)
        logger.info("%s: started as %d", self.service.name, self._child.pid)

    def end_if_hung(self) -> None:
        """Kill it if it answers nothing any more; flow runs of a worker go on."""
        if self.process is not None and self._watch.hangs():
            logger.warning("%s: it hangs, killing %d", self.service.name, self.process.pid)
            # A stopped process does not take SIGTERM.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)

    def on_death(self) -> None:
        """Decide when it may be restarted."""
        if time.monotonic() - self._since > STABLE_S:
            self._backoff_s = FIRST_BACKOFF_S
        code = None if self._child is None else self._child.returncode
        logger.warning(
            "%s: ended (%s), restart in %.0f s", self.service.name, code, self._backoff_s
        )
        self.not_before = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, LAST_BACKOFF_S)
        self.restarts += 1
        self.process = None

    def restart_at_once(self) -> None:
        """Skip the rest of the backoff."""
        self.not_before = 0.0
        self._backoff_s = FIRST_BACKOFF_S


class Supervisor:
    """Watches the services of a home's stack until it is told to stop."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._me = Process.of(os.getpid())
        self._stop = threading.Event()
        self._skip_backoff = threading.Event()
        self._watched = [
            WatchedService(service, _adopted(stack, service), health.api_of(stack))
            for service in services(stack)
        ]

    def run(self) -> None:
        """Keep the services running until SIGTERM or SIGINT; SIGHUP skips every backoff."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        signal.signal(signal.SIGHUP, lambda *_: self._skip_backoff.set())
        self._write()
        while not self._stop.is_set():
            if self._skip_backoff.is_set():
                self._skip_backoff.clear()
                for one in self._watched:
                    one.restart_at_once()
            changed = [self._look_after(one) for one in self._watched]
            if any(changed):
                self._write()
            self._stop.wait(POLL_S)
        self._stop_services()

    def _look_after(self, one: WatchedService) -> bool:
        """Start a service if it is due; whether anything has changed."""
        if one.alive():
            _rotate(self.stack.logs / f"{one.service.name}.log")
            one.end_if_hung()
            return False
        if one.process is not None:
            one.on_death()
            return True
        if time.monotonic() < one.not_before:
            return False
        if one.service.needs is not None and not health.api_of(self.stack).answers(
            one.service.needs
        ):
            return False
        if one.service.queue is not None:
            crash_dead_runs(one.service.queue, health.api_of(self.stack))
        one.start(self.stack)
        return True

    def _stop_services(self) -> None:
        """Stop the workers first: the state of their runs is reported to the servers."""
        logger.info("stopping")
        threads = [
            threading.Thread(target=self._stop_service, args=(one,), daemon=True)
            for one in self._watched
            if one.service.queue is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one in self._watched:
            name = one.service.name
            killed = running_processes.terminate(partial(self._left, name), grace_s=SERVER_GRACE_S)
            if killed:
                logger.warning("%s: %d had to be killed", name, killed)
        record.update(Path(self.stack.home), supervisor=None, services={})

    def _stop_service(self, one: WatchedService) -> None:
        name = one.service.name
        one.alive()
        killed = stop_service(
            one.service, one.process, partial(self._left, name), api=health.api_of(self.stack)
        )
        logger.info("%s: stopped, %d killed", name, killed)

    def _left(self, name: str) -> list[psutil.Process]:
        for one in self._watched:
            # A child that has ended remains as a zombie until it is reaped.
            one.alive()
        return running_processes.of_stack(self.stack.id, service=name)

    def _write(self) -> None:
        record.update(
            Path(self.stack.home),
            supervisor=self._me,
            services={one.service.name: one.process for one in self._watched if one.process},
        )


def _adopted(stack: Stack, service: Service) -> Process | None:
    """The service's process, if an earlier supervisor left it running."""
    process = stack.services.get(service.name)
    return process if process is not None and process.alive() else None


def _rotate(log: Path) -> None:
    # The service holds the file open for appending, so it is copied and then truncated.
    if log.is_file() and log.stat().st_size > MAX_LOG_BYTES:
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)


def main() -> None:
    """Watch the stack of the home that is named."""
    stack = record.read(Path(sys.argv[1]))
    if stack is None:
        sys.exit(f"no stack is on record in {sys.argv[1]}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    Supervisor(stack).run()


if __name__ == "__main__":
    main()
