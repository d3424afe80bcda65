"""Progress of long stages, and stopping them.

Stages report progress here, and listeners show it. A stage calls `advance` after each item,
once that item's result is recorded, so a run that stops there loses nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from coinml.errors import CoinmlError


class Listener(Protocol):
    """Shows the progress of stages, each identified by its name."""

    def begin(self, stage: str, total: int | None) -> None:
        """A stage of `total` items begins; None: the number is not known yet."""

    def advance(self, stage: str, items: int, total: int | None) -> None:
        """`items` more are done; `total` is the number of items where it has become known."""

    def end(self, stage: str) -> None:
        """The stage ended, complete or not."""


class StoppedError(CoinmlError):
    """The run was asked to stop; finished items are recorded and the next run continues."""


_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()
_stop = threading.Event()


def request_stop() -> None:
    """Make every stage of this process end after its current item."""
    _stop.set()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it, stages of all threads of this process report to `listener` too."""
    global _listeners
    with _lock:
        _listeners = (*_listeners, listener)
    try:
        yield
    finally:
        with _lock:
            _listeners = tuple(one for one in _listeners if one is not listener)


@contextmanager
def stage(name: str, total: int | None = None) -> Iterator[None]:
    """Announce a stage of `total` items; within it, `advance` counts them."""
    listeners = _listeners
    for listener in listeners:
        listener.begin(name, total)
    try:
        yield
    finally:
        for listener in listeners:
            listener.end(name)


def advance(name: str, items: int = 1, *, total: int | None = None) -> None:
    """Count items of a stage whose results are recorded.

    Raises:
        StoppedError: A stop was requested.
    """
    if _listeners:
        with _lock:
            for listener in _listeners:
                listener.advance(name, items, total)
    if _stop.is_set():
        raise StoppedError("stopped; the next call continues from here")


def counter(name: str) -> Callable[[int, int], None]:
    """A callback (done, total) for a stage: advances it by the items since the last call."""
    before = 0

    def report(done: int, _total: int) -> None:
        nonlocal before
        step, before = done - before, done
        advance(name, step)

    return report
