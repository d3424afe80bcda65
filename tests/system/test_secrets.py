"""Cookies, tokens and the passwords of proxy, databases and servers are written nowhere."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from coinml.miniature.host import FlakyHost
from tests.helpers.postgres import PostgresServer
from tests.helpers.small_coin_datasets import write_drawn_coin

COMMAND = str(Path(sys.executable).parent / "coinml")
COOKIE, PROXY, DATABASE, TRACKING = (
    "cookie-Zq7vK1xw",
    "proxy-Hn4tR8ye",
    "database-Lw2mC6uo",
    "tracking-Bd9sJ3pa",
)


class Proxy(ThreadingHTTPServer):
    """An HTTP proxy that requires a password, and answers 502 for one video."""

    def __init__(self, *, breaks: str) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.breaks = breaks
        self.cookies: set[str] = set()
        self.forwarded = 0

    @property
    def url(self) -> str:
        return f"http://agent:{PROXY}@127.0.0.1:{self.server_port}"


class _Forward(BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        told = self.headers.get("Proxy-Authorization", "").removeprefix("Basic ")
        if base64.b64decode(told).decode() != f"agent:{PROXY}":
            self.send_error(407)
            return
        self.server.cookies.add(self.headers.get("Cookie", ""))
        if self.server.breaks in self.path:
            self.send_error(502, "no way there")
            return
        self.server.forwarded += 1
        request = urllib.request.Request(self.path)
        for name in ("Range", "User-Agent"):
            if self.headers.get(name):
                request.add_header(name, self.headers[name])
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                content = answer.read()
                self.send_response(answer.status)
                for name in ("Content-Type", "Content-Range"):
                    if answer.headers.get(name):
                        self.send_header(name, answer.headers[name])
        except urllib.error.HTTPError as err:
            self.send_error(err.code)
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def coin(tmp_path: Path, make_video: Callable[..., Path]) -> Path:
    folder = tmp_path / "coin"
    write_drawn_coin(folder, 24, make_video)
    return folder


@pytest.fixture
def mlflow_url(tmp_path: Path) -> Iterator[str]:
    """A real tracking server; it has no users and ignores name and password."""
    folder = tmp_path / "tracking"
    folder.mkdir()
    with _free_port() as port:
        pass
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{folder / 'mlflow.db'}",
            "--artifacts-destination",
            str(folder / "artifacts"),
        ],
        cwd=folder,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=(log := (folder / "log").open("w")),
        stderr=subprocess.STDOUT,
    )
    try:
        for _ in range(300):
            assert server.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            time.sleep(0.3)
        yield f"http://keeper:{TRACKING}@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        yield int(probe.getsockname()[1])


def written(*folders: Path) -> Iterator[tuple[Path, bytes]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                yield path, path.read_bytes()


@pytest.mark.stack
@pytest.mark.timeout(1800)
def test_a_full_run_writes_no_secret(
    tmp_path: Path,
    coin: Path,
    tiny_encoder_dir: Path,
    mlflow_url: str,
    new_postgres: Callable[..., PostgresServer],
) -> None:
    home = tmp_path / "home"
    postgres = new_postgres(password=DATABASE)
    ledger = postgres.new_database()
    assert DATABASE in ledger
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(
        f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tSID\t{COOKIE}\n"
    )
    cookies.chmod(0o600)
    proxy = Proxy(breaks="video000004")
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("COINML", "PREFECT", "MLFLOW"))
    }
    environment = clean | {
        "COINML_HOME": str(home),
        "COINML_COOKIES": str(cookies),
        "COINML_PROXY": proxy.url,
        "COINML_LEDGER_URL": ledger,
        "MLFLOW_TRACKING_URI": mlflow_url,
        # The most verbose logging.
        "PREFECT_LOGGING_LEVEL": "DEBUG",
    }
    said: list[str] = []

    def coinml(*arguments: str, **other: str) -> int:
        done = subprocess.run(
            [COMMAND, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
            env=environment | other,
        )
        said.extend((done.stdout, done.stderr))
        return done.returncode

    dataset = ("--dataset", str(coin / "COIN.json"), "--name", "secret")
    with FlakyHost(coin / "videos") as host:
        source = ("--source", host.source)
        code = coinml("run", *dataset, *source, "--encoder", str(tiny_encoder_dir), "--clips", "2")
        # One video is still due; cookies, proxy, ledger and MLflow were all used.
        assert code == 3, said[-2:]
        assert proxy.forwarded >= 23
        assert any(COOKIE in sent for sent in proxy.cookies)
        proxy.shutdown()
        proxy.server_close()
        # The same when each of them fails. A missing proxy is this machine's fault.
        assert coinml("collect", *dataset, *source, "--retry-now") == 1, said[-2:]
    wrong = ledger.replace(DATABASE, f"{DATABASE}-wrong")
    for url in (wrong, wrong.replace(f":{postgres.port}/", ":none/"), f"nonsense {DATABASE}"):
        assert coinml("status", "--dataset", "secret", COINML_LEDGER_URL=url) in (1, 2), said[-2:]
    away = {"MLFLOW_TRACKING_URI": f"http://keeper:{TRACKING}@127.0.0.1:9"}
    assert coinml("registry", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", **away) == 1
    assert coinml("doctor", "--json", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", **away) in (0, 1)

    files = dict(written(home, tmp_path / "tracking", postgres.folder / "data"))
    # The files that must be searched exist.
    assert (home / "data" / "prefect" / "prefect.db") in files
    assert (tmp_path / "tracking" / "mlflow.db") in files
    assert len(files) > 100
    assert any(path.name == "coinml.log" for path in files)
    text = "\n".join(said)
    for secret in (COOKIE, PROXY, DATABASE, TRACKING):
        assert secret not in text
        found = [str(path) for path, content in files.items() if secret.encode() in content]
        assert found == []


TOKEN, QUERY = "token-Vx3nT9rb", "query-Kd5wP2zu"
NOWHERE = "127.0.0.1:9"
"""Where no server answers."""


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "says"),
    [
        (
            ("status", "--dataset", "mini"),
            {"COINML_LEDGER_URL": f"postgresql+psycopg://{NOWHERE}/c?user=a&password={QUERY}"},
            1,
            "password=***",
        ),
        (
            ("doctor", "--json"),
            {
                "COINML_LEDGER_URL": f"postgresql+psycopg://{NOWHERE}/c?user=a&password={QUERY}",
                "COINML_EMBEDDINGS_ROOT": f"ftp://{TOKEN}:{QUERY}@{NOWHERE}/sets",
                "MLFLOW_TRACKING_URI": f"http://{TOKEN}@{NOWHERE}?key={QUERY}",
                "PREFECT_API_URL": f"http://{TOKEN}@{NOWHERE}/api",
            },
            1,
            "does not answer",
        ),
        (
            ("embeddings",),
            {"COINML_EMBEDDINGS_ROOT": f"ftp://{TOKEN}:{QUERY}@{NOWHERE}/sets"},
            1,
            "***@127.0.0.1:9",
        ),
        (
            ("embeddings",),
            {"COINML_EMBEDDINGS_ROOT": f"nonsense://{TOKEN}@{NOWHERE}/sets?key={QUERY}"},
            2,
            "nonsense://***@127.0.0.1:9/sets?key=***",
        ),
        (("registry",), {"MLFLOW_TRACKING_URI": f"http://{TOKEN}@{NOWHERE}"}, 1, "***@127.0.0.1:9"),
        (
            ("move-runs", "--to", "sqlite:////nowhere/mlflow.db", "--artifacts", "/nowhere"),
            {"MLFLOW_TRACKING_URI": f"postgresql://a:{TOKEN}@{NOWHERE}/m?password={QUERY}"},
            2,
            "a:***@127.0.0.1:9/m?password=*** is not a local SQLite store",
        ),
        (
            ("collect", "--dataset", "mini", "--source", f"https://{TOKEN}@{NOWHERE}/{{id}}.mp4"),
            {},
            2,
            "contains a user name or a password",
        ),
        (
            ("collect", "--dataset", "mini", "--source", f"http://{NOWHERE}/{{id}}?token={QUERY}"),
            {},
            2,
            "has the query field 'token'",
        ),
    ],
)
def test_tokens_and_passwords_in_a_query_are_shown_nowhere(
    tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], code: int, says: str
) -> None:
    # No server can be had for each kind of URL, so these show what is said where none answers.
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("COINML", "PREFECT", "MLFLOW"))
    }
    done = subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env=clean
        | {"COINML_HOME": str(tmp_path / "home"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        | variables,
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert says in said.replace("\n", " ") or says in " ".join(said.split())
    for secret in (TOKEN, QUERY):
        assert secret not in said
        assert [p for p, content in written(tmp_path) if secret.encode() in content] == []


def test_runs_are_moved_without_showing_where_to(tmp_path: Path) -> None:
    from coinml.tracking.mlflow_store import MlflowStore

    home = tmp_path / "home"
    home.mkdir()
    MlflowStore(uri=f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts").client()
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("COINML", "PREFECT", "MLFLOW"))
    }
    for to in (
        f"postgresql://{NOWHERE}/m?user=a&password={QUERY}",
        f"sqlite:///{home / 'mlflow.db'}?key={QUERY}",
    ):
        done = subprocess.run(
            [COMMAND, "move-runs", "--to", to, "--artifacts", f"memory://{TOKEN}@x/a?key={QUERY}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=clean | {"COINML_HOME": str(home)},
        )
        assert done.returncode in (1, 2)
        assert QUERY not in done.stdout + done.stderr
