"""What `coinml doctor` finds of servers and workers, asked at a server that is made up."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

import pytest

from coinml.runtime.settings import Settings
from coinml_ops.doctor.examine import examine
from coinml_ops.doctor.servers import check_mlflow_server, check_prefect, check_workers
from coinml_ops.stack.record import Stack
from coinml_ops.stack.services import worker_name
from tests.helpers.findings import checked

Answers = dict[str, tuple[int, Any]]


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], str]]:
    """A function that serves answers (status and JSON or text by path) and returns the URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(answers: Answers) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, said = answers.get(self.path, (404, None))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(said if isinstance(said, bytes) else json.dumps(said).encode())

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_servers_are_checked_for_answer_and_version(
    settings: Settings, serve: Callable[[Answers], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = serve({"/api/admin/version": (200, version("prefect"))}) + "/api"
    assert checked(check_prefect(api))[0] == "ok"
    other = serve({"/api/admin/version": (200, "3.0.0")}) + "/api"
    state, text = checked(check_prefect(other))
    assert (state, "3.0.0" in text, version("prefect") in text) == ("warning", True, True)
    state, text = checked(check_prefect(serve({}) + "/api"))
    assert (state, "HTTP 404" in text) == ("failed", True)
    refused = check_prefect(serve({"/api/admin/version": (401, None)}) + "/api")
    assert (refused.state, "PREFECT_API_AUTH_STRING" in refused.remedy) == ("failed", True)
    state, text = checked(check_prefect("http://ann:hush-hush@127.0.0.1:9/api"))
    assert (state, "hush" in text) == ("failed", False)
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", serve({"/version": (200, version("mlflow").encode())})
    )
    assert checked(check_mlflow_server(settings))[0] == "ok"
    subjects = [finding.subject for finding in examine(settings, prefect_api=api)]
    assert subjects[-3:] == ["mlflow", "prefect", "workers"]


def test_missing_workers_are_a_warning(
    serve: Callable[[Answers], str],
) -> None:
    path = "/api/work_pools/coinml/workers/filter"
    for answer, state, says in (
        ((404, None), "warning", "no work pool"),
        ((200, [{"name": "a", "status": "OFFLINE"}]), "warning", "none online"),
        ((200, [{"name": "gpu-1", "status": "ONLINE"}]), "ok", "gpu-1"),
    ):
        found = checked(check_workers(serve({path: answer}) + "/api"))
        assert (found[0], says in found[1]) == (state, True)


def test_a_queue_that_its_workers_have_left_is_a_failure(serve: Callable[[Answers], str]) -> None:
    pool, now = "/api/work_pools/coinml", datetime.now(UTC)
    # A worker that hangs stays ONLINE for a while, and another one hides it for ever.
    workers = [{"name": f"{name}@elsewhere", "status": "ONLINE"} for name in ("gpu", "network")]

    def said(**polled_min: float | None) -> tuple[str, str]:
        queues = [
            {"name": name, "last_polled": minutes and str(now - timedelta(minutes=minutes))}
            for name, minutes in polled_min.items()
        ]
        answers = {
            f"{pool}/workers/filter": (200, workers),
            f"{pool}/queues/filter": (200, queues),
        }
        return checked(check_workers(serve(answers) + "/api"))

    # This machine may have no GPU, and Prefect's own queue is not used.
    assert said(gpu=None, network=0.2, default=900)[0] == "ok"
    assert said(gpu=13, network=0.2) == (
        "failed",
        "no worker has asked for runs of the queue gpu for 13 min",
    )


def test_each_worker_of_a_running_stack_is_expected(serve: Callable[[Answers], str]) -> None:
    path, stack = "/api/work_pools/coinml/workers/filter", Stack(id="a", home="/srv/coinml")
    now = datetime.now(UTC)

    def said(**silent_min: float) -> tuple[str, str]:
        workers = [
            {
                "name": worker_name(queue),
                "status": "ONLINE",
                "last_heartbeat_time": (now - timedelta(minutes=minutes)).isoformat(),
            }
            for queue, minutes in silent_min.items()
        ]
        return checked(check_workers(serve({path: (200, workers)}) + "/api", stack))

    assert said(network=0.5, gpu=0.5)[0] == "ok"
    state, text = said(network=13, gpu=0.5)
    assert (state, text) == ("failed", f"{worker_name('network')} has sent no heartbeat for 13 min")
    state, text = said(network=0.5)
    assert (state, text) == ("failed", f"{worker_name('gpu')} has never been heard")
