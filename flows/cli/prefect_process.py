"""The local Prefect server as a process: it ends when the last of its users has gone.

Run as ``python -m flows.cli.prefect_process --port P --users DIR``. Users are the
processes whose ids name a file in DIR. One that was killed leaves its file behind; its id
is then that of no living process, so that no server outlives the work it was started for.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from pathlib import Path

POLL_S = 2.0
GRACE_S = 10.0
"""A user's file may be written a moment after the server was started."""


def main() -> None:
    """Serve Prefect's API on loopback until nobody uses it any more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--users", type=Path, required=True)
    options = parser.parse_args()

    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(
        uvicorn.Config(create_app(), host="127.0.0.1", port=options.port, log_level="error")
    )
    threading.Thread(target=_stop_when_unused, args=(server, options.users), daemon=True).start()
    server.run()


def live_users(folder: Path) -> list[int]:
    """The ids of the living processes that use the server; forgets the dead."""
    import psutil

    alive = []
    for file in folder.glob("*"):
        pid, started = int(file.name), file.read_text()
        # A process id is used again sooner or later; the time of its start tells.
        if psutil.pid_exists(pid) and started == process_start(pid):
            alive.append(pid)
        else:
            file.unlink(missing_ok=True)
    return alive


def process_start(pid: int) -> str:
    """When a process began, as text; empty if there is none."""
    import psutil

    try:
        return repr(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return ""


def _stop_when_unused(server: object, users: Path) -> None:
    unused_since: float | None = None
    while True:
        time.sleep(POLL_S)
        if live_users(users):
            unused_since = None
        elif unused_since is None:
            unused_since = time.monotonic()
        elif time.monotonic() - unused_since > GRACE_S and _resign(users):
            server.should_exit = True  # type: ignore[attr-defined]
            return


def _resign(users: Path) -> bool:
    """Take this server's record away, unless somebody has just joined; False in that case.

    Otherwise a command could join a server that has made up its mind to end.
    """
    from filelock import FileLock

    record = users.parent / "server.json"
    with FileLock(users.parent / "lock"):
        if live_users(users):
            return False
        if record.is_file() and json.loads(record.read_text())["pid"] == os.getpid():
            record.unlink()
    return True


if __name__ == "__main__":
    main()
