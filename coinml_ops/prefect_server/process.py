"""A Prefect server as a process, which listens to nobody but its own pages and this machine.

Run as ``python -m coinml_ops.prefect_server.process --port P``. With ``--users DIR`` it ends when
the last of its users has gone: the processes whose ids name a file in DIR. One that was killed
leaves its file behind; its id is then that of no living process, so that no server outlives
the work it was started for.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coinml.runtime.process_identity import process_start
from coinml_ops.prefect_server.garbage_collection import collect_in_a_thread

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

POLL_S = 2.0
GRACE_S = 10.0
"""A user's file may be written a moment after the server was started."""


def main() -> None:
    """Serve Prefect's API and pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--allow-host", action="append", default=["127.0.0.1", "localhost"])
    parser.add_argument("--users", type=Path)
    options = parser.parse_args()

    import uvicorn

    # By default leases are in memory and die with the server: the slots of a run that was killed
    # would stay taken for ever, and one that lives would be ended for having lost its own.
    os.environ.setdefault(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE",
        "prefect.server.concurrency.lease_storage.filesystem",
    )
    from prefect.server.api.server import create_app

    collect_in_a_thread()
    server = uvicorn.Server(
        uvicorn.Config(
            guarded(create_app(), options.allow_host, port=options.port),
            host=options.host,
            port=options.port,
            log_level="error",
            # A page that is left open in a browser keeps its socket for ever.
            timeout_graceful_shutdown=5,
        )
    )
    if options.users is not None:
        watch = threading.Thread(
            target=_stop_when_unused, args=(server, options.users), daemon=True
        )
        watch.start()
    server.run()


def guarded(app: ASGIApp, hosts: Sequence[str], *, port: int) -> ASGIApp:
    """A server that is called by its own names only, and not by other sites' pages.

    Prefect has neither check. Without the first, a page whose name is made to lead to 127.0.0.1
    (DNS rebinding) could read and start everything; without the second, any page could open the
    web socket with the events, to which the browser's same-origin rule does not apply.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    own = _OwnPages(app, [f"{f'[{name}]' if ':' in name else name}:{port}" for name in hosts])
    return TrustedHostMiddleware(own, allowed_hosts=hosts, www_redirect=False)


class _OwnPages:
    """Refuses what the page of another site asks for."""

    def __init__(self, app: ASGIApp, places: Sequence[str]) -> None:
        self.app = app
        self.places = frozenset(place.lower() for place in places)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._is_ours(scope):
            from starlette.responses import PlainTextResponse

            await PlainTextResponse("Foreign origin", status_code=403)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        from starlette.datastructures import Headers

        headers = Headers(scope=scope)
        # Programs send none; browsers always do where it matters.
        origin = headers.get("origin")
        if origin is None:
            return True
        return urlsplit(origin).netloc.lower() in {*self.places, headers.get("host", "").lower()}


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
