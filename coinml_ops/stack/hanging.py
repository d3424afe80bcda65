"""Tells services that hang from those that are only busy: a live process that answers nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from coinml_ops.stack import health
from coinml_ops.stack.health import Api
from coinml_ops.stack.services import Service

EVERY_S = 10.0
"""How often a service is asked."""

STARTING_S = 300.0
"""How long a new process may be silent; on a busy machine the start takes minutes."""


class HangWatch:
    """Watches one process of a service, from its start or its adoption.

    Time is taken from a clock that nobody sets, and a worker's heartbeats are only compared with
    each other: neither a jump of the clock nor a server that is away looks like a hang.

    Args:
        service: Which.
        api: Prefect's, which knows the heartbeats of a worker.
        adopted: Whether the process was started earlier, and so should answer by now.
        clock: Seconds on a steady clock.
    """

    def __init__(
        self,
        service: Service,
        api: Api,
        *,
        adopted: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._api = api
        self._clock = clock
        self._asked = self._heard = clock()
        self._patience_s = health.silent_s() if adopted else STARTING_S
        self._heartbeat: str | None = ""
        if service.queue is not None:
            # That of an earlier process, or of this one if it is adopted.
            self._listen(service.queue)

    def hangs(self) -> bool:
        """Whether it has been silent for too long; asks it, unless it was asked just now."""
        if self._clock() - self._asked < EVERY_S:
            return False
        if self._service.queue is not None:
            self._listen(self._service.queue)
        elif self._service.health is not None and health.answers(self._service.health):
            self._hear()
        self._asked = self._clock()
        return self._asked - self._heard > self._patience_s

    def _listen(self, queue: str) -> None:
        try:
            heartbeat = health.last_heartbeat(self._api, queue)
        except OSError:
            # Without an answer nothing is known of the worker.
            self._heard = self._clock()
            return
        # "": the server did not answer so far, and an earlier process may have sent it.
        if heartbeat != self._heartbeat != "":
            self._hear()
        self._heartbeat = heartbeat

    def _hear(self) -> None:
        self._heard, self._patience_s = self._clock(), health.silent_s()
