"""Garbage in reference cycles, collected where it keeps nobody waiting.

Python collects in whichever thread happens to make the next object; in a server, that is the one
with the event loop. Python 3.11's cursor of a statement that failed keeps the statement, which the
connection uses again; when such a cursor is collected while that is under way in another thread,
SQLite has the collector wait for it. It may itself wait for a transaction that only the event loop
can end: the server stands still until SQLite gives up after a minute, and what waited fails with
"database is locked".
"""

from __future__ import annotations

import gc
import threading
import time

EVERY_S = 0.5


def collect_in_a_thread() -> None:
    """From now on, have a thread of its own collect, as often as Python would about as well."""
    gc.disable()
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    while True:
        time.sleep(EVERY_S)
        counts, limits = gc.get_count(), gc.get_threshold()
        full = [place for place in range(len(counts)) if counts[place] > limits[place]]
        if full:
            gc.collect(max(full))
