"""Collects reference cycles in a thread of its own, to keep SQLite from blocking the event loop.

Python runs its cyclic collector in whichever thread allocates the next object; in a server, that
is usually the event loop's. In Python 3.11, a cursor whose statement failed still holds the
statement, which the connection reuses. Collecting such a cursor while another thread runs that
statement makes the collecting thread wait for SQLite. If it is the event loop, the other thread
may in turn be waiting for a transaction that only the event loop can end: the server blocks until
SQLite's timeout of a minute, and the waiting request fails with "database is locked".
"""

from __future__ import annotations

import gc
import threading
import time

EVERY_S = 0.5


def collect_in_a_thread() -> None:
    """Collect in a background thread from now on, about as often as Python would."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    while True:
        time.sleep(EVERY_S)
        counts, limits = gc.get_count(), gc.get_threshold()
        due = [number for number in range(len(counts)) if counts[number] > limits[number]]
        if due:
            gc.collect(max(due))
