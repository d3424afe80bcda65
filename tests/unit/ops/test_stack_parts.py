"""The parts of a stack, without starting it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime import proxies
from coinml.runtime.process_identity import process_start
from coinml_ops.prefect_server.local_server import LocalPrefect
from coinml_ops.stack import ports, record, running_processes
from coinml_ops.stack.postgres import Databases, checked
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import MARK, SERVICE, allowed_hosts, services

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.helpers.postgres import PostgresServer

SERVER = "postgresql://coinml:se%40cret@db.local:5433"


def test_the_urls_of_the_three_databases() -> None:
    databases = Databases(SERVER)
    assert databases.names == ("coinml_prefect", "coinml_mlflow", "coinml_ledger")
    assert databases.prefect == (
        "postgresql+asyncpg://coinml:se%40cret@db.local:5433/coinml_prefect"
    )
    assert databases.ledger == "postgresql+psycopg://coinml:se%40cret@db.local:5433/coinml_ledger"
    assert databases.shown() == "db.local:5433"
    assert "cret" not in repr(databases)


def test_a_prefix_and_the_tls_option_of_each_driver() -> None:
    databases = Databases("postgres://me@db/trial?sslmode=require")
    assert databases.mlflow == "postgresql+psycopg://me@db/trial_mlflow?sslmode=require"
    assert databases.prefect == "postgresql+asyncpg://me@db/trial_prefect?ssl=require"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "db.local",
        "mysql://u:hush@h",
        "postgresql://",
        "postgresql://u:hush@h/a/b",
        "postgresql://u:hush@h:port",
    ],
)
def test_an_invalid_server_url_is_refused_without_being_printed(url: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        checked(url)
    assert "hush" not in str(refused.value)


def test_databases_are_created_once(new_postgres: Callable[..., PostgresServer]) -> None:
    import psycopg

    server = new_postgres("pa ss@/:%").address
    Databases(server).create()
    Databases(server).create()
    with psycopg.connect(Databases(server).ledger.replace("+psycopg", "")) as connection:
        rows = connection.execute("SELECT datname FROM pg_database").fetchall()
    assert set(Databases(server).names) <= {name for (name,) in rows}
    with pytest.raises(LocalError, match="password authentication failed") as refused:
        Databases(server.replace("pa%20ss", "wrong-word")).create()
    assert "wrong-word" not in str(refused.value)


def test_every_queue_of_the_pool_has_a_worker() -> None:
    commands = [one.command for one in services(Stack(id="a", home="/srv/coinml")) if one.queue]
    served = [
        [word for before, word in pairwise(command) if before == "--work-queue"]
        for command in commands
    ]
    # Prefect's own queue cannot be removed, and without a worker is shown as not ready.
    assert served == [["network", "default"], ["gpu"]]


def test_no_command_line_has_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COINML_SERVER_PASSWORD", "of-the-servers-0123456789")
    stack = Stack(id="a", home="/srv/coinml", postgres=SERVER)
    for service in services(stack):
        assert not any("cret" in word for word in service.command)
        assert not any("of-the-servers" in word for word in service.command)
        assert any("of-the-servers" in value for value in service.environment.values())
        assert "cret" not in "".join(
            value for name, value in service.environment.items() if "MLFLOW_TRACKING" in name
        )
    assert "cret" not in repr(stack)
    # Each service gets only its own database.
    with_secret = {
        one.name: [name for name, value in one.environment.items() if "cret" in value]
        for one in services(stack)
    }
    assert with_secret == {
        "prefect": ["PREFECT_SERVER_DATABASE_CONNECTION_URL"],
        "mlflow": ["MLFLOW_BACKEND_STORE_URI"],
        "metrics": ["COINML_LEDGER_URL"],
        "worker-network": ["COINML_LEDGER_URL"],
        "worker-gpu": ["COINML_LEDGER_URL"],
    }


def test_servers_get_no_proxy_and_everything_reaches_them_directly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = {
        "HTTP_PROXY": "http://ann:hush@proxy.example:3128",
        "https_proxy": "http://ann:hush@proxy.example:3128",
        "all_proxy": "socks5://ann:hush@proxy.example:1080",
        "COINML_PROXY": "http://ann:hush@proxy.example:3128",
        "COINML_LEDGER_URL": "postgresql://ann:hush@db.example/ledger",
    }
    for name in proxies.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "corp.example")
    stack = Stack(id="a", home="/srv/coinml", host="192.0.2.7")
    environments = {one.name: one.full_environment() for one in services(stack)}
    for name in ("prefect", "mlflow"):
        assert [key for key, value in environments[name].items() if "hush" in value] == []
    for name in ("worker-network", "worker-gpu"):
        assert {key: environments[name][key] for key in secrets} == secrets
        around = environments[name]["no_proxy"].split(",")
        assert around == ["corp.example", "localhost", "127.0.0.1", "::1", "192.0.2.7"]
        assert environments[name]["NO_PROXY"] == environments[name]["no_proxy"]


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    me = Process.of(os.getpid(), restarts=2)
    stack = Stack(
        id="a",
        home=str(tmp_path),
        names=("x",),
        postgres=SERVER,
        supervisor=me,
        services={"prefect": me},
    )
    assert record.read(tmp_path) is None
    record.write(stack)
    assert record.read(tmp_path) == stack
    record.update(tmp_path, dataset="mini")
    found = record.read(tmp_path)
    assert found is not None
    assert (found.dataset, found.services) == ("mini", stack.services)
    assert found.up()
    (path,) = record.stack_dir(tmp_path).glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_later_process_with_the_same_id_is_not_the_supervisor(tmp_path: Path) -> None:
    record.write(
        Stack(id="a", home=str(tmp_path), supervisor=Process(pid=os.getpid(), started="0"))
    )
    found = record.read(tmp_path)
    assert found is not None
    assert not found.up()


def test_a_child_of_a_dead_parent_is_found() -> None:
    code = "import subprocess as s, sys; s.Popen(['sleep', '60']); print(flush=True)"
    environment = os.environ | {MARK: "of-this-test", SERVICE: "parent"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    (found,) = running_processes.of_stack("of-this-test", service="parent")
    assert found.cmdline() == ["sleep", "60"]
    assert running_processes.of_stack("of-this-test", service="other") == []
    assert (
        running_processes.terminate(lambda: running_processes.of_stack("of-this-test"), grace_s=10)
        == 0
    )
    # A zombie counts as dead.
    assert running_processes.of_stack("of-this-test") == []


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {MARK: "deaf"}, stdout=subprocess.PIPE
    ) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        assert (
            running_processes.terminate(lambda: running_processes.of_stack("deaf"), grace_s=0.5)
            == 1
        )
        assert running_processes.of_stack("deaf") == []


def test_a_requested_port_must_be_free_and_a_default_one_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        other = ports.choose("127.0.0.1", None, port, option="--prefect-port")
        assert other != port
        with pytest.raises(InvalidInputError) as refused:
            ports.choose("127.0.0.1", port, 4200, option="--prefect-port")
    assert f"--prefect-port {port}: that port is in use" in str(refused.value)
    assert f"by process {os.getpid()}" in str(refused.value)
    assert ports.choose("127.0.0.1", other, 4200, option="--prefect-port") == other


def test_a_server_accepts_its_own_host_names() -> None:
    assert set(allowed_hosts(Stack(id="a", home="/"))) == {"127.0.0.1", "localhost", "::1"}
    open_to_all = allowed_hosts(Stack(id="a", home="/", host="0.0.0.0", names=("coin.lan",)))
    assert {"coin.lan", socket.gethostname(), "127.0.0.1"} <= set(open_to_all)
    assert "0.0.0.0" not in open_to_all


def test_a_local_server_in_use_is_not_stopped(tmp_path: Path) -> None:
    server = LocalPrefect(tmp_path)
    server.make_way()
    server.users.mkdir()
    server.record.write_text(json.dumps({"pid": os.getpid(), "started": "0", "port": 1}))
    (server.users / str(os.getpid())).write_text(process_start(os.getpid()))
    with pytest.raises(LocalError, match=f"process {os.getpid()}"):
        server.make_way()
    (server.users / str(os.getpid())).write_text("another of the same id")
    server.make_way()
    assert not server.record.exists()


def test_down_and_ui_without_a_stack(tmp_path: Path) -> None:
    def coinml(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "coinml_cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"COINML_HOME": str(tmp_path)},
            timeout=60,
        )

    assert json.loads(coinml("down", "--json").stdout) == {"stopped": []}
    assert coinml("ui").returncode == 1
    assert "coinml up" in coinml("ui").stderr
    refused = coinml("up", "--postgres", "postgresql://u:hush@h/a/b")
    assert refused.returncode == 2
    assert "hush" not in refused.stdout + refused.stderr
    assert coinml("up", "--print", "cron").returncode == 2


def test_prefects_server_removes_old_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    def vacuum() -> ServerServicesDBVacuumSettings:
        with monkeypatch.context() as patch:
            server = services(Stack(id="x", home=str(tmp_path)))[0]
            for name, value in server.environment.items():
                patch.setenv(name, value)
            return ServerServicesDBVacuumSettings()

    assert vacuum().enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert vacuum().retention_period == timedelta(days=30)
    monkeypatch.setenv("PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD", str(90 * 86400))
    assert vacuum().retention_period == timedelta(days=90)
