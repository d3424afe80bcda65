"""Runs of a stopped worker are marked as crashed on the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from coinml_ops.stack.health import Api
from coinml_ops.stack.shutdown import mark_crashed


@contextmanager
def busy_server(refusals: int) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """A server with one open run that answers the first requests with 503.

    It replaces Prefect's server, which cannot be made busy on demand.
    """
    heard: list[tuple[str, Any]] = []
    left = [refusals]

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            left[0] -= 1
            self.send_response(200 if left[0] < 0 else 503)
            self.end_headers()
            if left[0] < 0:
                heard.append((self.path, body))
                wants_id = "id" in body.get("flow_runs", {})
                self.wfile.write(json.dumps([{"id": "abc"}] if wants_id else []).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def states(heard: list[tuple[str, Any]]) -> list[tuple[str, str]]:
    return [(path, body["state"]["type"]) for path, body in heard if path.endswith("set_state")]


def test_a_busy_server_is_asked_again() -> None:
    with busy_server(refusals=3) as (api, heard):
        mark_crashed("abc", Api(api))
    assert states(heard) == [("/flow_runs/abc/set_state", "CRASHED")]


def test_a_server_that_stays_busy_is_given_up() -> None:
    with busy_server(refusals=1000) as (api, heard):
        mark_crashed("abc", Api(api))
    assert heard == []
