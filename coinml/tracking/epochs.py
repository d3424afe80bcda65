"""Writing epoch metrics to MLflow from another thread, so that training never waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from mlflow.exceptions import MlflowException

Numbers = Mapping[str, float]
"""Metrics of one epoch, by MLflow's names."""

logger = logging.getLogger(__name__)


class EpochWriter:
    """Queues epochs from the training thread and writes them from its own.

    A call of MLflow takes longer than an epoch of a small network, and retries for minutes if
    the server does not answer. Epochs that could not be written stay queued; `close` writes the
    rest.

    Args:
        write: Writes a sequence of epochs; its second argument is the number of the first one.
        every_s: Seconds between two writes; each writes all epochs queued since the last.
        first: Number of the first epoch.
    """

    def __init__(
        self, write: Callable[[Sequence[Numbers], int], None], *, every_s: float, first: int = 1
    ) -> None:
        self._write = write
        self._every_s = every_s
        self._next = first
        self._waiting: list[Numbers] = []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="epochs", daemon=True)
        self._thread.start()

    def add(self, values: Numbers) -> None:
        """Queue one epoch."""
        with self._lock:
            self._waiting.append(values)

    def close(self) -> None:
        """Write the queued epochs and stop the thread.

        Raises:
            MlflowException: MLflow refuses them or does not answer.
        """
        self._closed.set()
        self._thread.join()
        self._flush()

    def _work(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                self._flush()
            except MlflowException as err:
                # The next turn, or `close`, tries again.
                logger.warning("MLflow did not take the latest epochs: %s", type(err).__name__)

    def _flush(self) -> None:
        with self._lock:
            now = list(self._waiting)
        if not now:
            return
        self._write(now, self._next)
        with self._lock:
            del self._waiting[: len(now)]
        self._next += len(now)
