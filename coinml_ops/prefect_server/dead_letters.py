"""Sends events of coinml again that Prefect's server has given up, in a thread of the server.

A consumer of the server that fails four times at an event, as when SQLite is locked, writes it to a
file in the folder `dlq` and forgets it.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EVERY_S = 60.0

AGE_S = 360.0
"""The server takes an event that it has seen in the last five minutes for a duplicate."""

GIVEN_UP_S = 86400.0
"""An older letter stays where it is: what it was about has been done since."""

OURS = "coinml."
"""Events of Prefect itself are left alone: they may contradict what has happened since."""

logger = logging.getLogger(__name__)


def retry_in_a_thread(folder: Path, post: Callable[[str, Any], object]) -> None:
    """Send dead letters again, from now on.

    Args:
        folder: Where the server writes them.
        post: Posts a JSON document to a path of the server's API; raises OSError.
    """

    def work() -> None:
        while True:
            time.sleep(EVERY_S)
            retry_dead_letters(folder, post, now=time.time())

    threading.Thread(target=work, name="dead-letters", daemon=True).start()


def retry_dead_letters(
    folder: Path, post: Callable[[str, Any], object], *, now: float
) -> list[str]:
    """Send those dead letters again that are old enough, and remove them.

    Args:
        folder: Where the server writes them.
        post: As `retry_in_a_thread` takes it.
        now: Seconds since the epoch.

    Returns:
        Names of the events.
    """
    sent = []
    for file in sorted(folder.glob("*")):
        try:
            age_s = now - file.stat().st_mtime
            if not AGE_S < age_s < GIVEN_UP_S:
                continue
            event = json.loads(json.loads(file.read_bytes())["data"])
            if not event["event"].startswith(OURS):
                continue
            post("/events", [{key: value for key, value in event.items() if key != "received"}])
            file.unlink()
        except (OSError, ValueError, LookupError, TypeError) as err:
            logger.warning("dead letter %s: %s", file.name, err)
            continue
        logger.warning("%s is sent again", event["event"])
        sent.append(event["event"])
    return sent
