"""Starts the services of a stack, brings back those that die, and ends them when it is told to.

Run as ``python -m coinml_ops.stack.supervisor HOME``. SIGTERM and SIGINT end everything. If it is
killed itself, the services go on; the next `coinml up` starts another, which takes them over.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coinml_ops.stack import health, processes, record
from coinml_ops.stack.ending import end_worker
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import Service, services

if TYPE_CHECKING:
    import psutil

POLL_S = 0.5
FIRST_BACKOFF_S = 1.0
LAST_BACKOFF_S = 60.0
STABLE_S = 60.0
"""Who has lived so long has no history any more: its next death is answered at once."""

SERVER_GRACE_S = 15.0
LOG_BYTES = 20_000_000
"""A larger log is put aside, over the one before it."""

logger = logging.getLogger(__name__)


class Watched:
    """A service and what became of it so far."""

    def __init__(self, service: Service, process: Process | None) -> None:
        self.service = service
        self.process = process
        self.restarts = 0 if process is None else process.restarts
        self.not_before = 0.0
        self._backoff_s = FIRST_BACKOFF_S
        self._child: subprocess.Popen[bytes] | None = None
        self._since = time.monotonic()

    def alive(self) -> bool:
        """Whether it runs; buries it if it was a child of ours."""
        if self._child is not None:
            self._child.poll()
        return self.process is not None and self.process.alive()

    def start(self, stack: Stack) -> None:
        """Start it; what its predecessor left behind and would be in its way is ended first."""
        if self.service.queue is None:
            # A server's child may still hold its port. A worker's are runs, which may finish.
            remains = processes.marked(stack.id, service=self.service.name)
            if remains:
                logger.warning("%s: ending %d remains", self.service.name, len(remains))
                processes.end(
                    lambda: processes.marked(stack.id, service=self.service.name), grace_s=5
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
                # Signals that are meant for the supervisor are not for its services.
                start_new_session=True,
            )
        self.process = Process.of(self._child.pid, restarts=self.restarts)
        self._since = time.monotonic()
        logger.info("%s: started as %d", self.service.name, self._child.pid)

    def died(self) -> None:
        """Decide when it may come back."""
        if time.monotonic() - self._since > STABLE_S:
            self._backoff_s = FIRST_BACKOFF_S
        code = None if self._child is None else self._child.returncode
        logger.warning("%s: ended (%s), back in %.0f s", self.service.name, code, self._backoff_s)
        self.not_before = time.monotonic() + self._backoff_s
        self._backoff_s = min(2 * self._backoff_s, LAST_BACKOFF_S)
        self.restarts += 1
        self.process = None

    def at_once(self) -> None:
        """Somebody asks for it now."""
        self.not_before = 0.0
        self._backoff_s = FIRST_BACKOFF_S


class Supervisor:
    """Watches the services of a home's stack until it is told to stop."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._me = Process.of(os.getpid())
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._watched = [Watched(service, _adopted(stack, service)) for service in services(stack)]

    def run(self) -> None:
        """Start what does not run, and stay."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop.set())
        signal.signal(signal.SIGHUP, lambda *_: self._hurry.set())
        self._write()
        while not self._stop.is_set():
            if self._hurry.is_set():
                self._hurry.clear()
                for one in self._watched:
                    one.at_once()
            changed = [self._look_after(one) for one in self._watched]
            if any(changed):
                self._write()
            self._stop.wait(POLL_S)
        self._end()

    def _look_after(self, one: Watched) -> bool:
        """Start a service if it is time to; whether anything has changed."""
        if one.alive():
            _rotate(self.stack.logs / f"{one.service.name}.log")
            return False
        if one.process is not None:
            one.died()
            return True
        if time.monotonic() < one.not_before:
            return False
        if one.service.needs is not None and not health.answers(one.service.needs):
            return False
        one.start(self.stack)
        return True

    def _end(self) -> None:
        """Workers first: of a run that is ended, something is said to the servers."""
        logger.info("ending")
        workers = [one for one in self._watched if one.service.queue is not None]
        together = [
            threading.Thread(target=self._end_worker, args=(one,), daemon=True) for one in workers
        ]
        for thread in together:
            thread.start()
        for thread in together:
            thread.join()
        for one in self._watched:
            self._finish(one.service.name)
        record.update(Path(self.stack.home), supervisor=None, services={})

    def _end_worker(self, one: Watched) -> None:
        alive = one.process is not None and one.alive()
        pid = one.process.pid if one.process and alive else None
        name = one.service.name
        killed = end_worker(pid, lambda: self._left(name), api=self.stack.prefect_api)
        logger.info("%s: ended, %d killed", name, killed)

    def _finish(self, name: str) -> None:
        killed = processes.end(lambda: self._left(name), grace_s=SERVER_GRACE_S)
        if killed:
            logger.warning("%s: %d had to be killed", name, killed)

    def _left(self, name: str) -> list[psutil.Process]:
        for one in self._watched:
            # A child that has ended is there until it is asked for.
            one.alive()
        return processes.marked(self.stack.id, service=name)

    def _write(self) -> None:
        record.update(
            Path(self.stack.home),
            supervisor=self._me,
            services={one.service.name: one.process for one in self._watched if one.process},
        )


def _adopted(stack: Stack, service: Service) -> Process | None:
    """The service's process, if a supervisor before this one left it running."""
    process = stack.services.get(service.name)
    return process if process is not None and process.alive() else None


def _rotate(log: Path) -> None:
    # The service holds the file open for appending: it is copied, and then emptied.
    if log.is_file() and log.stat().st_size > LOG_BYTES:
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
