"""How far a long stage is, and whether it should go on.

Stages tell their progress here and whoever watches installs a listener. Every stage
passes here after each item, when all that was done is on record: the one place where a
run can be stopped without losing anything, from whichever thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from coinml.errors import CoinmlError


class Listener(Protocol):
    """Shows the progress of stages, each known by its name."""

    def begin(self, stage: str, total: int | None) -> None:
        """A stage of `total` items begins; None: how many will turn out."""

    def advance(self, stage: str, items: int, total: int | None) -> None:
        """`items` more are done; `total` says how many there are, if that has turned out."""

    def end(self, stage: str) -> None:
        """The stage is over, whether it was finished or not."""


class StoppedError(CoinmlError):
    """The run was asked to stop; what is done is on record and the next run goes on."""


_listeners: tuple[Listener, ...] = ()
_lock = threading.Lock()
_stop = threading.Event()


def request_stop() -> None:
    """Make every stage of this process end after the item that it is at."""
    _stop.set()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within it, stages of this process report to `listener` too, from whichever thread."""
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
    told = _listeners
    for listener in told:
        listener.begin(name, total)
    try:
        yield
    finally:
        for listener in told:
            listener.end(name)


def advance(name: str, items: int = 1, *, total: int | None = None) -> None:
    """Count items of a stage, all of whose traces are on record.

    Raises:
        StoppedError: A stop was requested.
    """
    if _listeners:
        with _lock:
            for listener in _listeners:
                listener.advance(name, items, total)
    if _stop.is_set():
        raise StoppedError("stopped; the next call goes on from here")


def counter(name: str) -> Callable[[int, int], None]:
    """For what reports how many are done of how many: counts the steps between two reports."""
    before = 0

    def report(done: int, _total: int) -> None:
        nonlocal before
        step, before = done - before, done
        advance(name, step)

    return report
