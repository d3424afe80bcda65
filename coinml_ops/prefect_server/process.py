"""A Prefect server that accepts requests only from its own pages and from programs.

Run as ``python -P -m coinml_ops.prefect_server.process --port P``. With ``--users DIR`` it ends
when no living process is registered in DIR any more, so that it does not outlive a command that
was killed. The password is in PREFECT_SERVER_API_AUTH_STRING; Prefect asks for it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from coinml_ops.access.gate import SignIn, guarded, remember_in_prefect
from coinml_ops.access.password import PREFECT_SERVER, USER
from coinml_ops.prefect_server.dead_letters import retry_in_a_thread
from coinml_ops.prefect_server.garbage_collection import collect_in_a_thread
from coinml_ops.prefect_server.users import live_users
from coinml_ops.stack.health import Api
from coinml_ops.stack.record import Stack

if TYPE_CHECKING:
    import uvicorn

POLL_S = 2.0
GRACE_S = 10.0
"""A user may register itself a moment after the server was started."""


def main() -> None:
    """Serve Prefect's API and pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--allow-host", action="append", default=["127.0.0.1", "localhost"])
    parser.add_argument("--users", type=Path)
    options = parser.parse_args()
    password = os.environ.get(PREFECT_SERVER, "").removeprefix(f"{USER}:")
    if not password:
        sys.exit(f"{PREFECT_SERVER} is not set: without it, every user could use this server")

    import uvicorn

    # The default keeps leases in memory: after a restart of the server, the slots of a killed run
    # would stay taken for ever, and a living run would be ended because its lease is unknown.
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE",
        "prefect.server.concurrency.lease_storage.filesystem",
    )
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    collect_in_a_thread()
    own = Stack(id="", home="", host=options.host, prefect_port=options.port)
    api = Api(own.prefect_api, password)
    retry_in_a_thread(get_current_settings().home / "dlq", api.post)
    app = guarded(create_app(), options.allow_host, port=options.port)
    server = uvicorn.Server(
        uvicorn.Config(
            SignIn(app, password, remember=remember_in_prefect),
            host=options.host,
            port=options.port,
            log_level="error",
            # A page that is open in a browser never closes its web socket.
            timeout_graceful_shutdown=5,
        )
    )
    if options.users is not None:
        watch = threading.Thread(
            target=_stop_when_unused, args=(server, options.users), daemon=True
        )
        watch.start()
    server.run()


def _stop_when_unused(server: uvicorn.Server, users: Path) -> None:
    unused_since: float | None = None
    while True:
        time.sleep(POLL_S)
        if live_users(users):
            unused_since = None
        elif unused_since is None:
            unused_since = time.monotonic()
        elif time.monotonic() - unused_since > GRACE_S and _remove_record(users):
            server.should_exit = True
            return


def _remove_record(users: Path) -> bool:
    """Remove this server's record, so that no command joins a server that is about to end.

    Returns:
        False if a command has joined in the meantime; the record stays.
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
