"""The password of a home's servers, and what is refused without it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from coinml.errors import InvalidInputError
from coinml_ops import environment
from coinml_ops.access.gate import (
    SIGN_IN,
    OwnPagesOnly,
    PasswordOnly,
    SignIn,
    remember_in_mlflow,
    remember_in_prefect,
    sign_in_page,
)
from coinml_ops.access.password import (
    VARIABLE,
    authorization,
    client_variables,
    ensure_password,
    password_file,
    read_password,
    stored_password,
)
from coinml_ops.access.sign_in_files import write_sign_in_files
from coinml_ops.environment import use_stack
from coinml_ops.stack import record
from coinml_ops.stack.record import Process, Stack

PASSWORD = "of-this-test-0123456789"


def test_the_password_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    assert read_password(tmp_path) == ""
    previous = os.umask(0)
    try:
        made: list[str] = []
        threads = [
            threading.Thread(target=lambda: made.append(ensure_password(tmp_path)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        os.umask(previous)
    assert len(made) == 8
    assert set(made) == {read_password(tmp_path)}
    assert len(made[0]) >= 40
    assert password_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("*env*")] != []
    assert ensure_password(tmp_path / "another") != made[0]


def test_a_password_of_the_environment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_password(tmp_path)
    monkeypatch.setenv(VARIABLE, PASSWORD)
    assert ensure_password(tmp_path) == PASSWORD
    monkeypatch.delenv(VARIABLE)
    assert ensure_password(tmp_path) == stored_password(tmp_path) == PASSWORD
    for bad in ("short", f"{PASSWORD}'\nX='", f"{PASSWORD} {PASSWORD}", f"{PASSWORD}\n"):
        monkeypatch.setenv(VARIABLE, bad)
        with pytest.raises(InvalidInputError, match=VARIABLE) as refused:
            ensure_password(tmp_path)
        assert bad not in str(refused.value)


async def _hello(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


async def _greet(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")


@pytest.fixture
def server() -> TestClient:
    """An app behind the password, as MLflow's is."""
    app = Starlette(
        routes=[
            Route("/health", _hello, methods=["GET", "POST"]),
            Route("/{path:path}", _hello, methods=["GET", "POST"]),
            WebSocketRoute("/socket", _greet),
        ]
    )
    guarded = PasswordOnly(OwnPagesOnly(app), PASSWORD, open_paths=("/health",))
    return TestClient(
        SignIn(guarded, PASSWORD, remember=remember_in_mlflow), base_url="http://127.0.0.1:5000"
    )


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        f"Bearer {PASSWORD}",
        authorization(PASSWORD).swapcase(),
        authorization(PASSWORD + "x"),
        authorization(PASSWORD[:-1]),
        "Basic \xff",
    ],
)
def test_requests_without_the_password_get_401(server: TestClient, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    for path in ("/", "/api/x", "/health/", "/health/x", "//health", "/HEALTH", "/a/%2e%2e/health"):
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
            answer = server.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"].startswith("Basic ")
            assert "hello" not in answer.text
    with pytest.raises(WebSocketDisconnect), server.websocket_connect("/socket", headers=headers):
        pass


def test_requests_with_the_password_pass(server: TestClient) -> None:
    headers = {"Authorization": authorization(PASSWORD)}
    assert server.get("/api/x", headers=headers).text == "hello"
    assert server.get("/health").text == "hello"
    assert server.post("/health").status_code == 401
    with server.websocket_connect("/socket", headers=headers) as socket:
        assert socket.receive_text() == "hello"
    twice = [("Authorization", headers["Authorization"]), ("Authorization", "Basic x")]
    assert server.get("/api/x", headers=twice).status_code == 401


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:8000", "http://localhost:5000", "null"]
)
def test_pages_of_other_servers_are_refused_with_the_password_too(
    server: TestClient, origin: str
) -> None:
    headers = {"Authorization": authorization(PASSWORD)}
    assert server.post("/api/x", headers=headers | {"Origin": origin}).status_code == 403
    own = headers | {"Origin": "http://127.0.0.1:5000"}
    assert server.post("/api/x", headers=own).status_code == 200


def test_a_browser_signs_in_with_the_password_alone(server: TestClient) -> None:
    for sent in ("", "x", PASSWORD[:-1], PASSWORD + "x" * 5000, "\xff"):
        refused = server.post(SIGN_IN, data={"password": sent})
        assert refused.status_code == 401
        assert PASSWORD not in refused.text
    assert server.get(SIGN_IN, params={"password": PASSWORD}).status_code == 401
    answer = server.post(SIGN_IN, data={"password": PASSWORD}, headers={"Origin": "null"})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    # A cookie would be sent to the other ports of the host, too.
    assert "set-cookie" not in answer.headers
    assert "prefect-password" in remember_in_prefect(PASSWORD)


def test_the_pages_that_sign_in_are_their_owner_s(tmp_path: Path) -> None:
    ensure_password(tmp_path)
    files = write_sign_in_files(tmp_path, {"mlflow": "http://127.0.0.1:5000"})
    assert files["mlflow"].stat().st_mode & 0o777 == 0o600
    assert f'action="http://127.0.0.1:5000{SIGN_IN}"' in files["mlflow"].read_text()
    assert "method=post" in sign_in_page("http://127.0.0.1:5000", PASSWORD)


@pytest.mark.parametrize("module", ["coinml_ops.prefect_server.process", "mlflow"])
def test_a_server_without_a_password_does_not_start(module: str) -> None:
    if module == "mlflow":
        code = "from coinml_ops.access.mlflow_app import create_app; create_app()"
        command = ["-c", code]
    else:
        command = ["-m", module, "--port", "1"]
    clean = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=clean
    )
    assert done.returncode == 1
    assert "is not set: without" in done.stderr


def test_another_address_than_loopback_needs_a_password_that_others_know(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "coinml_ops.stack", "mlflow", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COINML_HOME": str(tmp_path)},
    )
    assert done.returncode == 2
    assert f"set {VARIABLE}" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The record of a running stack, in this process's home."""
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", *client_variables("x")):
        # Set first, so that monkeypatch restores what `use_stack` sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(environment, "FROM_STACK", set())
    stack = Stack(id="a", home=str(tmp_path), guarded=True, supervisor=Process.of(os.getpid()))
    record.write(stack)
    ensure_password(tmp_path / "data")
    return stack


def sent_now() -> dict[str, str]:
    return {name: os.environ[name] for name in client_variables("x") if name in os.environ}


def test_commands_of_the_home_have_its_password(running: Stack) -> None:
    use_stack()
    assert os.environ["MLFLOW_TRACKING_URI"] == running.mlflow_url
    assert sent_now() == client_variables(read_password(Path(running.home) / "data"))


@pytest.mark.parametrize(
    "elsewhere",
    [
        "http://mlflow.example.org:5000",
        "http://mlflow.example.org:4200/api",
        "http://127.0.0.1:5001",
        "http://127.0.0.1.example.org:5000",
        "http://127.0.0.1:5000@example.org/",
        "sqlite:////srv/mlflow.db",
    ],
)
def test_servers_elsewhere_never_get_the_password(
    running: Stack, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home_s = client_variables(read_password(Path(running.home) / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
    monkeypatch.setenv("PREFECT_API_URL", elsewhere)
    use_stack()
    assert sent_now() == {}
    # Also if a shell has read access.env.
    for name, value in home_s.items():
        monkeypatch.setenv(name, value)
    use_stack()
    assert sent_now() == {}
    # The other server's own password stays.
    own = client_variables("of-the-other-server")
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    use_stack()
    assert sent_now() == own


def test_doctor_asks_with_the_password_of_the_server_it_asks(
    running: Stack, monkeypatch: pytest.MonkeyPatch, serve_headers: Callable[[], Any]
) -> None:
    from coinml.runtime.settings import Settings
    from coinml_ops.doctor.servers import check_mlflow_server, check_prefect

    url, heard = serve_headers()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    use_stack()
    check_mlflow_server(Settings())
    assert heard == [None]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hers")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ann:hers")
    check_mlflow_server(Settings())
    check_prefect(f"{url}/api")
    assert heard[1:] == [httpx.BasicAuth("ann", "hers")._auth_header] * 2


@pytest.fixture
def serve_headers() -> Any:
    """A function that starts a server and returns its URL and the Authorization headers it got."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    heard: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield lambda: (f"http://127.0.0.1:{server.server_port}", heard)
    server.shutdown()
    server.server_close()
