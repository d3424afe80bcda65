"""Another user of the machine gets nothing from the servers of `coinml up`."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from coinml.tracking.mlflow_store import MlflowStore
from coinml_ops.access.password import auth_string, authorization, client_variables, password_file
from coinml_ops.stack import record, running_processes
from coinml_ops.stack.services import SERVICE
from tests.helpers.coinml_stack import SERVICES, CoinmlStack, coinml_stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

NOBODY = 65534
SLOW_S = 120.0
OPEN = {("/health", "GET"), ("/ready", "GET")}
"""What Prefect's API answers without a password; MLflow's server only /health."""

STRANGER = """
import json, sys, urllib.error, urllib.request
job = json.load(sys.stdin)
said = {}
for path in job["files"]:
    try:
        said[path] = open(path).read()
    except OSError as err:
        said[path] = type(err).__name__
for url, body, headers in job["requests"]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **headers})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        said[url] = opener.open(request, timeout=60).status
    except urllib.error.HTTPError as err:
        said[url] = err.code
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def running_stack(make_video: Callable[..., Path]) -> Iterator[CoinmlStack]:
    """A stack in a home that every user may enter; its worker has collected a folder."""
    # Not in pytest's folder, which other users may not enter.
    place = Path(tempfile.mkdtemp(prefix="coinml-access-"))
    place.chmod(0o755)
    folder = place / "clips"
    for number in range(8):
        path = folder / "ab"[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_video(path, seconds=0.5, seed=number)
    try:
        with coinml_stack(place) as here:
            here.up("--dataset", f"folder:{folder}")
            assert here.coinml("ui", "--no-open").returncode == 0
            run = here.start_run("collect/hourly")
            wait_for(
                lambda: here.run_state(run) in ("COMPLETED", "FAILED", "CRASHED"),
                seconds=300,
                said=here.logs,
            )
            assert here.run_state(run) == "COMPLETED", here.logs()
            yield here
    finally:
        shutil.rmtree(place, ignore_errors=True)


def listening(here: CoinmlStack) -> dict[int, str]:
    """The ports on which the stack's processes listen, with the name of the service."""
    found = {}
    for process in here.processes():
        service = running_processes.environment(process).get(SERVICE, "supervisor")
        with suppress(psutil.Error):
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found[connection.laddr.port] = service
    return found


def said_to(port: int, sent: bytes) -> bytes:
    """All that a port answers until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=SLOW_S) as connection:
        connection.sendall(sent)
        with suppress(ConnectionResetError):
            return connection.makefile("rb").read()
    return b""


def names_of(here: CoinmlStack, what: str) -> set[str]:
    """The names of the server's variables or experiments, as its owner sees them."""
    stack = here.stack()
    if what == "variables":
        return {one["name"] for one in here.api("/variables/filter", {})}
    url = f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=50"
    return {one["name"] for one in json.loads(here.get(url))["experiments"]}


def test_a_stranger_s_request_gets_401_at_every_socket_of_the_stack(
    running_stack: CoinmlStack,
) -> None:
    stack = running_stack.stack()
    metrics = running_stack.metrics_port
    servers = {stack.prefect_port: "prefect", stack.mlflow_port: "mlflow", metrics: "metrics"}
    ports = listening(running_stack)
    assert ports.items() >= servers.items()
    # The others belong to workers and their runs, which cancel a run by them: Prefect's runner
    # closes a connection whose first line is not the token that it made for a run.
    others = {port: name for port, name in ports.items() if port not in servers}
    assert len(others) >= 2
    for port, name in others.items():
        assert name.startswith("worker-")
        assert said_to(port, b"GET / HTTP/1.0\r\n\r\n") == b""
        assert said_to(port, b"0" * 32 + b"\nc") == b""
    before = {what: names_of(running_stack, what) for what in ("variables", "experiments")}
    api, tracking = stack.prefect_api, f"{stack.mlflow_url}/api/2.0/mlflow"
    wrong = authorization("x" * 43)
    for headers in ({}, {"Authorization": wrong}, {"Authorization": "Basic ???"}):
        answers = [
            httpx.get(f"{api}/admin/version", headers=headers),
            httpx.post(f"{api}/flow_runs/filter", json={}, headers=headers),
            httpx.post(f"{api}/variables/", json={"name": "x", "value": 1}, headers=headers),
            httpx.get(f"http://127.0.0.1:{metrics}/metrics", headers=headers),
            httpx.get(f"{stack.mlflow_url}/", headers=headers),
            httpx.get(f"{stack.mlflow_url}/version", headers=headers),
            httpx.get(f"{tracking}/experiments/search?max_results=5", headers=headers),
            httpx.post(f"{tracking}/experiments/create", json={"name": "x"}, headers=headers),
            httpx.get(
                f"{stack.mlflow_url}/ajax-api/2.0/mlflow/experiments/search", headers=headers
            ),
            httpx.get(f"{stack.mlflow_url}/get-artifact?path=a&run_uuid=b", headers=headers),
            httpx.put(
                f"{stack.mlflow_url}/api/2.0/mlflow-artifacts/artifacts/0/x",
                content=b"x",
                headers=headers,
            ),
        ]
        assert [one.status_code for one in answers] == [401] * len(answers)
        assert not any("experiments" in one.text for one in answers)
    assert {what: names_of(running_stack, what) for what in before} == before
    assert not [*(running_stack.home / "mlartifacts").rglob("x")]


def test_no_path_of_prefect_s_api_answers_a_stranger(running_stack: CoinmlStack) -> None:
    stack = running_stack.stack()
    headers = running_stack.signed_in
    description = httpx.get(f"{stack.prefect_api}/openapi.json", headers=headers, timeout=SLOW_S)
    paths = description.json()["paths"]
    tried = 0
    with httpx.Client(base_url=stack.prefect_api, timeout=SLOW_S) as stranger:
        for path, methods in paths.items():
            for method in {name.upper() for name in methods} & {
                "GET",
                "POST",
                "PUT",
                "PATCH",
                "DELETE",
            }:
                filled = re.sub(r"\{[^}]*\}", "00000000-0000-0000-0000-000000000001", path)
                answer = stranger.request(method, filled, json=None if method == "GET" else {})
                expected = 200 if (path, method) in OPEN else 401
                assert answer.status_code == expected, (method, path)
                tried += 1
    assert tried > 100


@pytest.mark.parametrize("path", ["events/in", "events/out", "logs/out"])
def test_no_web_socket_of_prefect_takes_a_stranger(running_stack: CoinmlStack, path: str) -> None:
    from websockets.exceptions import ConnectionClosed, InvalidStatus
    from websockets.sync.client import connect

    api = running_stack.stack().prefect_api.replace("http", "ws", 1)

    def greeted(password: str) -> bool:
        with connect(f"{api}/{path}", subprotocols=["prefect"]) as socket:
            socket.send(json.dumps({"type": "auth", "token": auth_string(password)}))
            try:
                return json.loads(socket.recv(SLOW_S))["type"] == "auth_success"
            except ConnectionClosed:
                return False

    assert greeted(running_stack.password)
    assert not greeted("x" * 43)
    with pytest.raises(InvalidStatus), connect(f"{api}/{path}"):
        pass


def test_another_user_can_read_no_password_and_use_no_server(running_stack: CoinmlStack) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    python = Path(sys.executable).resolve()
    # Not every interpreter's folder is open to others.
    as_nobody: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
    candidates = [str(python), "/usr/bin/python3", "/usr/local/bin/python3"]
    usable = [one for one in candidates if Path(one).exists() and _runs(one, as_nobody)]
    if not usable:
        pytest.skip("no Python that another user may run")
    stack, data = running_stack.stack(), running_stack.home / "data"
    private = [
        password_file(data),
        record.stack_dir(running_stack.home) / "stack.json",
        *sorted((data / "stack").glob("sign-in-*.html")),
    ]
    assert len(private) == 4
    assert [path.stat().st_mode & 0o777 for path in private] == [0o600] * 4
    public = data / "public"
    public.write_text("read")
    create = f"{stack.mlflow_url}/api/2.0/mlflow/experiments/create"
    requests: list[tuple[str, Any, dict[str, str]]] = [
        (f"{stack.prefect_api}/flow_runs/filter", {}, {}),
        (f"{stack.prefect_api}/variables/", {"name": "stranger", "value": 1}, {}),
        (f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1", None, {}),
        (create, {"name": "stranger"}, {}),
        # This one shows that the password is all that a stranger lacks.
        (f"{stack.prefect_api}/admin/version", None, running_stack.signed_in),
    ]
    files = [str(path) for path in (*private, public)]
    done = subprocess.run(
        [usable[0], "-I", "-S", "-c", STRANGER],
        input=json.dumps({"files": files, "requests": requests}),
        capture_output=True,
        text=True,
        check=True,
        **as_nobody,
    )
    said = json.loads(done.stdout)
    assert [said[path] for path in files] == ["PermissionError"] * 4 + ["read"]
    assert [said[url] for url, _, _ in requests] == [401] * 4 + [200]
    assert "stranger" not in names_of(running_stack, "variables")
    assert "stranger" not in names_of(running_stack, "experiments")


def _runs(python: str, as_user: dict[str, Any]) -> bool:
    try:
        command = [python, "-I", "-S", "-c", ""]
        return subprocess.run(command, check=False, capture_output=True, **as_user).returncode == 0
    except OSError:
        return False


def test_the_password_is_in_no_command_line_log_database_or_artifact(
    running_stack: CoinmlStack,
) -> None:
    password = running_stack.password
    assert len(password) >= 40
    encoded = base64.b64encode(auth_string(password).encode()).decode()
    told = [password.encode(), encoded.encode()]
    for process in running_stack.processes():
        assert not any(password in word or encoded in word for word in process.cmdline())
    shown = running_stack.coinml("ui", "--no-open")
    again = running_stack.coinml("up")
    doctor = running_stack.coinml("doctor")
    for done in (shown, again, doctor):
        assert password not in done.stdout + done.stderr
        assert encoded not in done.stdout + done.stderr
    files = [path for path in running_stack.home.rglob("*") if path.is_file()]
    assert {"prefect.db", "mlflow.db", "worker-network.log"} <= {path.name for path in files}
    with_password = {path.name for path in files if any(one in path.read_bytes() for one in told)}
    assert with_password == {"access.env", "sign-in-mlflow.html", "sign-in-prefect.html"}


def test_doctor_says_that_the_servers_ask_for_a_password(running_stack: CoinmlStack) -> None:
    def finding() -> dict[str, str]:
        (found,) = (
            one
            for one in json.loads(running_stack.coinml("doctor", "--json").stdout)
            if one["subject"] == "access"
        )
        return dict(found)

    assert finding()["state"] == "ok"
    path = password_file(running_stack.home / "data")
    path.chmod(0o640)
    assert (finding()["state"], "other users" in finding()["text"]) == ("failed", True)
    path.chmod(0o600)


def test_the_clients_of_a_shell_that_reads_the_file_are_let_in(
    running_stack: CoinmlStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stack = running_stack.stack()
    command = f"set -a; . '{password_file(running_stack.home / 'data')}'; env -0"
    environment = running_stack.environment
    read = subprocess.run(["sh", "-c", command], capture_output=True, env=environment, check=True)
    shell = dict(line.split("=", 1) for line in read.stdout.decode().split("\0") if line)
    for name in client_variables("x"):
        monkeypatch.setenv(name, shell[name])
    client = MlflowStore(uri=stack.mlflow_url, artifact_root=tmp_path).client()
    assert client.search_experiments()
    run = subprocess.run(
        [sys.executable, "-m", "prefect", "deployment", "ls"],
        capture_output=True,
        text=True,
        check=False,
        env=shell | {"PREFECT_API_URL": stack.prefect_api},
    )
    assert run.returncode == 0, run.stderr
    assert "hourly" in run.stdout


def test_up_replaces_servers_that_ask_for_no_password(running_stack: CoinmlStack) -> None:
    """As an earlier version has left them; the record of those says nothing of a password."""
    before = running_stack.stack()
    record.update(running_stack.home, guarded=False)
    done = running_stack.coinml("up")
    assert done.returncode == 0, done.stderr
    assert "ask for no password: replacing them" in done.stderr
    after = running_stack.stack()
    assert after.guarded
    assert (after.prefect_port, after.mlflow_port) == (before.prefect_port, before.mlflow_port)
    assert not any(one.alive() for one in before.services.values())
    assert running_stack.are_up() == SERVICES
    assert httpx.post(f"{after.prefect_api}/flow_runs/filter", json={}).status_code == 401
