"""A loopback HTTP server that serves a folder of videos with planned faults.

`python -m coinml.miniature.host DIR --port P --plan FILE` serves `/{id}.mp4` for any id with
a file in DIR. The plan (all of it optional):

    {"videos": {"ID": ["503", "reset", "ok"]},
     "source": [{"after_requests": 50, "answer": "429", "retry_after_s": 2, "times": 5}]}

An id's list has one answer per request; the last one repeats. After `after_requests` requests, an
entry of `source` refuses the next `times` requests (or all for `for_s` seconds); a refused request
uses no answer of the id's list. `GET /_log` returns the number of requests by id, without those
refused by `source`; `GET /_log/full` lists every request in order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

from coinml.errors import InvalidInputError
from coinml.miniature.fault_plan import FaultPlan, SourceRule
from coinml.runtime.addresses import parts_of

log = logging.getLogger(__name__)

_HTML = b"<!DOCTYPE html><html><head><title>One moment</title></head><body>Hello</body></html>"
_SLOW_STEPS = 20


class FlakyHost:
    """The server; as a context manager it runs in a thread.

    Args:
        folder: The folder of the videos, as `<id>.mp4`.
        plan: A `FaultPlan`, or a mapping in the form of the JSON file.
        port: 0: any free port.
    """

    def __init__(
        self,
        folder: Path | str,
        plan: FaultPlan | Mapping[str, Any] | None = None,
        *,
        port: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.plan = plan if isinstance(plan, FaultPlan) else FaultPlan.from_dict(plan or {})
        self.port = port
        self._lock = threading.Lock()
        self._requests: list[tuple[str, str]] = []
        self._asked: dict[str, int] = {}
        self._refused = [0] * len(self.plan.source)
        self._refusing_until: list[float | None] = [None] * len(self.plan.source)
        self._server: _Server | None = None
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        threading.Thread(target=self.serve_forever, name="flaky-host", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def source(self) -> str:
        """The URL template for `--source`."""
        return self.url + "/{id}.mp4"

    def log(self) -> dict[str, int]:
        """Number of requests by id, without those refused by the source."""
        with self._lock:
            return dict(self._asked)

    def requests(self) -> list[tuple[str, str]]:
        """Every request in order as (id, answer); "source 429" is a refusal by the source."""
        with self._lock:
            return list(self._requests)

    def start(self) -> None:
        """Bind the port.

        Raises:
            InvalidInputError: The folder does not exist or the port is taken.
        """
        if not self.folder.is_dir():
            raise InvalidInputError(f"{self.folder}: no such folder")
        try:
            self._server = _Server(self)
        except OSError as err:
            raise InvalidInputError(f"port {self.port}: {err.strerror}") from err
        self.port = self._server.server_address[1]

    def serve_forever(self) -> None:
        """Answer requests until `stop` is called."""
        assert self._server is not None
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Close the port; answers in progress are cut off."""
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def wait(self, seconds: float) -> None:
        """Sleep, at most until the server stops."""
        self._closing.wait(seconds)

    @property
    def is_closing(self) -> bool:
        """Whether the server stops."""
        return self._closing.is_set()

    def decide(self, video_id: str) -> tuple[str, float | None]:
        """Count a request and return its answer and, for a refusal, Retry-After in seconds."""
        with self._lock:
            answered = len(self._requests)
            for number, rule in enumerate(self.plan.source):
                if answered >= rule.after_requests and self._still_refuses(number, rule):
                    self._refused[number] += 1
                    self._requests.append((video_id, f"source {rule.answer}"))
                    return str(rule.answer), rule.retry_after_s
            count = self._asked.get(video_id, 0)
            self._asked[video_id] = count + 1
            answers = self.plan.videos.get(video_id, ("ok",))
            answer = answers[min(count, len(answers) - 1)]
            self._requests.append((video_id, answer))
            return answer, None

    def _still_refuses(self, number: int, rule: SourceRule) -> bool:
        if rule.for_s is not None:
            until = self._refusing_until[number]
            if until is None:
                until = self._refusing_until[number] = time.monotonic() + rule.for_s
            return time.monotonic() < until
        return rule.times is None or self._refused[number] < rule.times


class _Server(ThreadingHTTPServer):
    """With threads that end with the process, and a queue long enough for bursts."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, host: FlakyHost) -> None:
        self.host = host
        super().__init__(("127.0.0.1", host.port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a closed connection without a traceback: faults make clients hang up."""
        log.debug("connection ended: %s", sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes; with Nagle's algorithm each answer waits for a delayed ACK.
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        host = self.server.host
        path = unquote(parts_of(self.path).path)
        if path in ("/_log", "/_log/full"):
            content = host.log() if path == "/_log" else host.requests()
            self._send(200, json.dumps(content).encode(), "application/json")
            return
        video_id = path.removeprefix("/").removesuffix(".mp4")
        answer, retry_after_s = host.decide(video_id)
        if answer.isdigit():
            headers = {} if retry_after_s is None else {"Retry-After": f"{retry_after_s:g}"}
            self._send(int(answer), b"", "text/plain", headers)
        elif answer == "html":
            self._send(200, _HTML, "text/html; charset=utf-8")
        elif answer == "empty":
            self._send(200, b"", "video/mp4")
        else:
            self._send_video(video_id, answer)

    def _send_video(self, video_id: str, answer: str) -> None:
        # Ids come from the network: a path outside the folder must not be read.
        path = self.server.host.folder / f"{video_id}.mp4"
        if not video_id or "/" in video_id or "\\" in video_id or not path.is_file():
            self._send(404, b"", "text/plain")
            return
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        total, start = len(content), self._range_start()
        if answer == "ignore_range" or self.headers.get("If-Range", etag) != etag:
            start = 0
        if start >= total > 0:
            self._send(416, b"", "text/plain", {"Content-Range": f"bytes */{total}"})
            return
        if answer == "wrong_range":
            start //= 2
        body = content[start:]
        headers = {"Accept-Ranges": "bytes", "ETag": etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
        status = 206 if start else 200
        if answer in ("ok", "ignore_range", "wrong_range") or self.command == "HEAD":
            self._send(status, body, "video/mp4", headers)
            return
        sized = answer not in ("unsized", "endless")
        self._send_head(status, len(body) if sized else None, "video/mp4", headers)
        self._send_badly(body, answer)

    def _send_badly(self, body: bytes, answer: str) -> None:
        host = self.server.host
        if answer == "slow":
            step = max(1, -(-len(body) // _SLOW_STEPS))
            for offset in range(0, len(body), step):
                self.wfile.write(body[offset : offset + step])
                host.wait(host.plan.slow_s / _SLOW_STEPS)
            return
        self.close_connection = True
        if answer == "drip":
            for byte in body:
                self.wfile.write(bytes([byte]))
                host.wait(host.plan.drip_s)
            return
        if answer in ("unsized", "endless"):
            self.wfile.write(body)
            while answer == "endless" and not host.is_closing:
                self.wfile.write(body)
            return
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        if answer == "stall":
            host.wait(host.plan.stall_s)
        elif answer == "reset":
            # Let the bytes be sent first: a reset discards what is still in the buffer.
            time.sleep(0.02)
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            # Close the file descriptor itself: the socket object would send a FIN first.
            os.close(self.connection.detach())

    def _range_start(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", "").strip())
        return int(match[1]) if match else 0

    def _send(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> None:
        self._send_head(status, len(body), kind, headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_head(
        self, status: int, length: int | None, kind: str, headers: Mapping[str, str]
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is None:
            # The body ends with the connection.
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; the entry point of `python -m coinml.miniature.host`."""
    parser = argparse.ArgumentParser(
        prog="python -m coinml.miniature.host",
        description="Serve a folder of videos on loopback, with planned faults.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the <id>.mp4 files")
    parser.add_argument("--port", type=int, default=0, help="0 (default): any free port")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="JSON file with the faults")
    args = parser.parse_args(argv)
    try:
        plan = FaultPlan.read(args.plan) if args.plan else FaultPlan(videos={})
        host = FlakyHost(args.folder, plan, port=args.port)
        host.start()
    except InvalidInputError as err:
        sys.stderr.write(f"{parser.prog}: {err}\n")
        return 2
    # SIGTERM ends the server as cleanly as Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.stderr.write(f"serving {host.folder} at {host.source}\n")
    sys.stderr.flush()
    try:
        host.serve_forever()
    except (KeyboardInterrupt, SystemExit):
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
