"""Metrics of a long training on their way to MLflow, which may be away for a while."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from mlflow.exceptions import MlflowException

Numbers = Mapping[str, float]
"""Metrics of one epoch, by MLflow's names."""

logger = logging.getLogger(__name__)


class EpochWriter:
    """Takes epochs from the thread that trains and writes them from one of its own.

    So the training never waits: a call of MLflow's costs more than an epoch of a small network,
    and one that finds no server tries for minutes. What could not be written stays in hand, and
    `close` writes the rest.

    Args:
        write: Writes epochs, of which the first has this number.
        every_s: Seconds between two writes, all that have come since then in one.
        first: Number of the first epoch that will come.
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
        """Take one epoch."""
        with self._lock:
            self._waiting.append(values)

    def close(self) -> None:
        """Write what is left.

        Raises:
            MlflowException: MLflow does not take it.
        """
        self._closed.set()
        self._thread.join()
        self._flush()

    def _work(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                self._flush()
            except MlflowException as err:
                # The next turn, or `close`, comes back to it.
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
