"""The processes that use a local Prefect server: a file `<pid>` each, with the start time in it."""

from __future__ import annotations

import os
from pathlib import Path

from coinml.runtime.process_identity import process_start


def join(folder: Path) -> None:
    """Register this process as a user."""
    folder.mkdir(parents=True, exist_ok=True)
    me = os.getpid()
    (folder / str(me)).write_text(process_start(me))


def leave(folder: Path) -> None:
    """Remove this process."""
    (folder / str(os.getpid())).unlink(missing_ok=True)


def live_users(folder: Path) -> list[int]:
    """Ids of the living processes that use the server; removes the files of dead ones."""
    import psutil

    alive = []
    for file in folder.glob("*"):
        pid, started = int(file.name), file.read_text()
        # Process ids are reused; the start time distinguishes the processes.
        if psutil.pid_exists(pid) and started == process_start(pid):
            alive.append(pid)
        else:
            file.unlink(missing_ok=True)
    return alive
