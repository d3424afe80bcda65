"""A store that cannot take runs is refused before the work, in words that help."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from coinml.errors import InvalidInputError, LocalError, TransientError
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.store_check import CHECKED, check_store

NAME = "coin-task"


def at(uri: str, folder: Path) -> MlflowStore:
    return MlflowStore(uri=uri, artifact_root=folder / "mlartifacts")


def test_a_store_that_works_gets_the_experiment_and_nothing_else(store: MlflowStore) -> None:
    check_store(store, NAME)
    check_store(store, NAME)
    (found,) = [one for one in store.client().search_experiments() if one.name == NAME]
    assert CHECKED in found.tags
    assert found.artifact_location == (store.artifact_root / NAME).as_uri()
    assert store.client().search_runs([found.experiment_id]) == []


def test_a_deleted_experiment_is_refused_with_the_command_that_restores_it(
    store: MlflowStore,
) -> None:
    with store.run(NAME, "before", tags={}):
        pass
    client = store.client()
    client.delete_experiment(store.experiment(NAME))
    with pytest.raises(LocalError, match="experiment 'coin-task' is deleted in MLflow") as caught:
        check_store(store, NAME)
    # The same for one that is deleted during the work.
    with pytest.raises(LocalError, match="is deleted"), store.run(NAME, "after", tags={}):
        pass
    command = re.search(
        r"(MLFLOW_TRACKING_URI='[^']*') (mlflow experiments .*?);", str(caught.value)
    )
    assert command is not None
    (variable,), words = shlex.split(command[1]), shlex.split(command[2])
    subprocess.run(
        [sys.executable, "-m", *words],
        env={**os.environ, **dict([variable.split("=", 1)])},
        check=True,
        capture_output=True,
    )
    check_store(store, NAME)
    assert len(client.search_runs([store.experiment(NAME)])) == 1


@pytest.mark.parametrize("form", ["{}", "file://{}", "mlruns", "file:mlruns"])
def test_a_folder_is_refused(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = at(form.format(tmp_path), tmp_path)
    for use in (lambda: check_store(store, NAME), lambda: store.find_runs(NAME, {})):
        with pytest.raises(InvalidInputError, match="no longer keeps runs in a folder"):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="is a folder"):
        check_store(at(f"sqlite:///{tmp_path}", tmp_path), NAME)
    (tmp_path / "text.db").write_text("no database, only text\n" * 100)
    with pytest.raises(LocalError, match=r"text\.db is no database"):
        check_store(at(f"sqlite:///{tmp_path / 'text.db'}", tmp_path), NAME)
    with pytest.raises(LocalError, match=r"File exists: .*text\.db'"):
        check_store(at(f"sqlite:///{tmp_path / 'text.db' / 'mlflow.db'}", tmp_path), NAME)


def test_a_database_that_can_only_be_read_is_refused(
    store: MlflowStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # MLflow makes a folder `file:` of such an address in the working folder.
    monkeypatch.chdir(tmp_path)
    with store.run(NAME, "before", tags={}):
        pass
    read_only = at(f"sqlite:///file:{tmp_path / 'mlflow.db'}?mode=ro&uri=true", tmp_path)
    with pytest.raises(LocalError, match=r"runs cannot be recorded .* readonly database"):
        check_store(read_only, NAME)
    # Reading goes on.
    assert read_only.client().get_experiment_by_name(NAME) is not None


def test_an_artifact_folder_that_cannot_be_written_is_refused(
    store: MlflowStore, tmp_path: Path
) -> None:
    (tmp_path / "in the way").touch()
    place = tmp_path / "in the way" / NAME
    store.client().create_experiment(NAME, artifact_location=place.as_uri())
    with pytest.raises(LocalError, match=r"runs cannot be recorded .*in the way"):
        check_store(store, NAME)
    check_store(store, "another")
    assert list((store.artifact_root / "another").iterdir()) == []


def test_a_database_whose_driver_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="runs cannot be recorded in MLflow at mssql") as caught:
        check_store(at("mssql://joe:s3cret@db.invalid/mlflow", tmp_path), NAME)
    assert "s3cret" not in str(caught.value)


class _Fixed(BaseHTTPRequestHandler):
    answer: ClassVar[tuple[int, str, bytes]]

    def do_GET(self) -> None:
        status, kind, body = self.answer
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server that gives every request the same answer; its URL, with a password."""
    servers = []

    def start(status: int, kind: str, body: bytes) -> str:
        handler = type("Handler", (_Fixed,), {"answer": (status, kind, body)})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://joe:s3cret@127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (403, "text/html", b"<h1>Forbidden</h1>", "403"),
        (403, "application/json", b'{"error_code": "PERMISSION_DENIED"}', "PERMISSION_DENIED"),
        (401, "text/plain", b"who are you", "401"),
        (404, "text/html", b"no such page", "404"),
        (302, "text/html", b"", "302"),
        (200, "text/html", b"<html>A portal</html>", "not in a valid JSON format"),
        (200, "application/json", b"{}", "does not answer like MLflow"),
    ],
)
def test_a_server_that_refuses_or_is_not_mlflow_is_refused(
    status: int, kind: str, body: bytes, said: str, serve: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(LocalError, match=re.escape(said)) as caught:
        check_store(at(serve(status, kind, body), tmp_path), NAME)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TransientError, match="does not answer"):
        check_store(at("http://joe:s3cret@127.0.0.1:9", tmp_path), NAME)


def test_a_server_is_asked_once_in_a_check_and_with_the_usual_retries_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]
) -> None:
    """503 is what MLflow's client tries again, as it does a refused connection."""
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    asked = []
    answer = _Fixed.do_GET
    monkeypatch.setattr(_Fixed, "do_GET", lambda self: (asked.append(self.path), answer(self)))
    before = dict(os.environ)
    with pytest.raises(TransientError, match="does not answer"):
        check_store(
            at(serve(503, "text/plain", b"away").replace("joe:s3cret@", ""), tmp_path), NAME
        )
    assert len(asked) == 1
    assert {name: os.environ.get(name) for name in before} == before
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


@pytest.mark.parametrize("uri", ["http://[x", "http://joe:s3cret@[x", "postgresql://[::1/mlflow"])
def test_a_malformed_address_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"MLFLOW_TRACKING_URI '.*name a database"
    ) as caught:
        at(uri, tmp_path)
    assert "s3cret" not in str(caught.value)


def test_an_unknown_kind_of_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match=r"MLflow at foo://x .*unsupported URI"):
        check_store(at("foo://x", tmp_path), NAME)


def test_a_locked_database_is_tried_again(
    store: MlflowStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    check_store(store, NAME)
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(TransientError, match="locked"):
            check_store(store, NAME)
