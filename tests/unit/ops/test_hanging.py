"""What hangs is told from what is busy, away or starting; runs without a process are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from coinml_ops.stack.dead_runs import crash_dead_runs, may_be_elsewhere, without_process
from coinml_ops.stack.hanging import EVERY_S, STARTING_S, HangWatch
from coinml_ops.stack.health import Api, silent_s
from coinml_ops.stack.services import Service, worker_name
from coinml_ops.stack.shutdown import FLOW_RUN


class Clock:
    """A steady clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Server:
    """Answers like Prefect's server, which cannot be made to hang and to return on demand."""

    def __init__(self) -> None:
        self.status = 200
        self.workers: list[dict[str, Any]] = []
        self.taken: list[str] = []
        self.crashed: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say(None)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path.endswith("/workers/filter"):
                    self.say(server.workers)
                elif self.path.endswith("/set_state"):
                    assert body["state"]["type"] == "CRASHED"
                    server.crashed.append(self.path.split("/")[-2])
                    self.say({})
                else:
                    wanted = body["flow_runs"]
                    ids = wanted.get("id", {}).get("any_", server.taken)
                    self.say([] if "parent_flow_run_id" in wanted else [{"id": i} for i in ids])

            def say(self, answer: Any) -> None:
                self.send_response(server.status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.api = Api(f"http://127.0.0.1:{self.http.server_address[1]}")


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever)
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def watched(server: Server, *, queue: str | None, adopted: bool = False) -> tuple[HangWatch, Clock]:
    health = None if queue else f"{server.api.url}/health"
    service = Service(name="one", command=(), environment={}, health=health, queue=queue)
    clock = Clock()
    return HangWatch(service, server.api, adopted=adopted, clock=clock), clock


def silent_for(watch: HangWatch, clock: Clock, seconds: float) -> bool:
    """Whether it counts as hanging at any time in the seconds to come."""
    end = clock.now + seconds
    hangs = False
    while clock.now < end:
        clock.now += EVERY_S
        hangs = hangs or watch.hangs()
    return hangs


def test_a_server_hangs_when_it_has_answered_and_answers_no_more(server: Server) -> None:
    watch, clock = watched(server, queue=None)
    assert not silent_for(watch, clock, 60)
    server.status = 503
    assert not silent_for(watch, clock, silent_s())
    assert silent_for(watch, clock, EVERY_S)


def test_a_server_that_starts_has_more_time(server: Server) -> None:
    server.status = 503
    watch, clock = watched(server, queue=None)
    assert not silent_for(watch, clock, STARTING_S)
    assert silent_for(watch, clock, EVERY_S)
    # `coinml up` starts another supervisor and waits for what hung before: it is no start.
    watch, clock = watched(server, queue=None, adopted=True)
    assert not silent_for(watch, clock, silent_s())
    assert silent_for(watch, clock, EVERY_S)


def test_a_worker_hangs_without_heartbeats_and_not_while_the_server_is_away(
    server: Server,
) -> None:
    # An earlier process of this name has left a heartbeat: the new one may take long to start.
    server.workers = [{"name": worker_name("gpu"), "last_heartbeat_time": "2031-01-01T00:00:00Z"}]
    watch, clock = watched(server, queue="gpu")
    assert not silent_for(watch, clock, STARTING_S)
    assert silent_for(watch, clock, EVERY_S)
    watch, clock = watched(server, queue="gpu")
    # The clock was set back by years: heartbeats are only compared with each other.
    server.workers[0]["last_heartbeat_time"] = "2026-01-01T00:00:00Z"
    assert not silent_for(watch, clock, silent_s())
    server.status = 503
    assert not silent_for(watch, clock, 10 * silent_s())
    server.status = 200
    assert silent_for(watch, clock, silent_s() + EVERY_S)


def test_the_patience_follows_the_interval_of_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_WORKER_HEARTBEAT_SECONDS", raising=False)
    assert silent_s() == 120
    monkeypatch.setenv("PREFECT_WORKER_HEARTBEAT_SECONDS", "60")
    assert silent_s() == 240
    monkeypatch.setenv("PREFECT_WORKER_HEARTBEAT_SECONDS", "1")
    assert silent_s() == 60


def test_runs_without_a_process_are_marked_as_crashed(server: Server) -> None:
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, FLOW_RUN: "lives"}
    )
    try:
        assert without_process(["lives", "dead"]) == ["dead"]
        server.taken = ["lives", "dead"]
        assert crash_dead_runs("gpu", server.api) == server.crashed == ["dead"]
    finally:
        sleeper.kill()
        sleeper.wait()
    # Another machine's worker may have it: the automations decide.
    now = datetime.now(UTC).isoformat()
    server.workers = [{"name": "gpu@elsewhere", "last_heartbeat_time": now}]
    assert crash_dead_runs("gpu", server.api) == []
    server.status = 500
    assert crash_dead_runs("gpu", server.api) == []
    assert server.crashed == ["dead"]


def test_only_workers_that_were_heard_lately_may_have_runs() -> None:
    now = datetime.now(UTC)
    own = {"name": worker_name("gpu"), "last_heartbeat_time": now.isoformat()}
    other = {"name": "old", "last_heartbeat_time": (now - timedelta(days=3)).isoformat()}
    never = {"name": "new", "last_heartbeat_time": None}
    assert not may_be_elsewhere([own, other, never], now=now)
    other["last_heartbeat_time"] = (now - timedelta(hours=3)).isoformat()
    assert may_be_elsewhere([own, other], now=now)
