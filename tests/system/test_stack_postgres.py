"""The stack on PostgreSQL: two workers share one ledger, and the password is visible nowhere."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from coinml.runtime.process_identity import is_dead
from coinml_ops.deployments.automations import SILENT_S
from coinml_ops.stack.postgres import Databases
from tests.helpers.coinml_stack import (
    COMMAND,
    SERVICES,
    CoinmlStack,
    coinml_stack,
    status,
    wait_for,
)

if TYPE_CHECKING:
    from tests.helpers.postgres import PostgresServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

PASSWORD = "hush-hush-7381"
LONG_S = 600


@pytest.fixture(scope="module")
def server(new_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    return new_postgres(PASSWORD)


@pytest.fixture(scope="module")
def running_stack(
    tmp_path_factory: pytest.TempPathFactory, server: PostgresServer
) -> Iterator[CoinmlStack]:
    """A stack that got the server's URL on its command line."""
    with coinml_stack(tmp_path_factory.mktemp("postgres")) as here:
        prefect, mlflow = map(str, here.ports)
        call = [
            COMMAND,
            "up",
            "--postgres",
            server.address,
            "--prefect-port",
            prefect,
            "--mlflow-port",
            mlflow,
            "--metrics-port",
            str(here.metrics_port),
        ]
        with (here.home / "up.log").open("w") as log:
            up = subprocess.Popen(call, env=here.environment, stdout=log, stderr=log, cwd=here.home)
            # After it has read the URL, its own command line no longer has the password.
            wait_for(lambda: (here.home / "data").is_dir() or up.poll() is not None, seconds=60)
            while up.poll() is None:
                assert with_password() == []
                try:
                    up.wait(1)
                except subprocess.TimeoutExpired:
                    continue
        assert up.returncode == 0, (here.home / "up.log").read_text() + here.logs()
        yield here
    assert here.processes() == []


def with_password() -> list[list[str]]:
    """Command lines that contain the password; every user can read them."""
    lines = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if any(PASSWORD in word for word in line):
            lines.append(line)
    return lines


def query(url: str, statement: str) -> list[Any]:
    """Rows from one of the three databases; none while its tables do not exist."""
    plain = url.replace("+asyncpg", "").replace("+psycopg", "")
    with psycopg.connect(plain) as connection:
        try:
            return connection.execute(statement.encode()).fetchall()
        except psycopg.errors.UndefinedTable:
            return []


def count(url: str, table: str) -> int:
    ((rows,),) = query(url, f"SELECT count(*) FROM {table}")
    return int(rows)


def ended(running_stack: CoinmlStack, run_id: str, *, within_s: float = LONG_S) -> str:
    """The state in which a run has ended."""
    over = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    state: str = wait_for(
        lambda: (state := running_stack.run_state(run_id)) in over and state,
        seconds=within_s,
        said=running_stack.logs,
    )
    return state


def flow_processes(worker: int) -> list[psutil.Process]:
    """A worker's descendants."""
    return psutil.Process(worker).children(recursive=True)


def kill(victims: list[psutil.Process]) -> None:
    """Send SIGKILL, to a process that could report the others first."""
    for process in victims:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_every_service_answers(running_stack: CoinmlStack) -> None:
    assert running_stack.are_up() == SERVICES
    assert running_stack.stack().postgres
    # A second `up` remembers the server.
    again = running_stack.up()
    assert again["was_running"] is True
    assert again["database"].startswith("PostgreSQL at 127.0.0.1")


def test_a_stranger_s_requests_get_401(running_stack: CoinmlStack) -> None:
    stack = running_stack.stack()
    search = f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"
    for url in (f"{stack.prefect_api}/admin/version", search):
        assert status(url)[0] == 401
        assert status(url, **running_stack.signed_in)[0] == 200
    password = running_stack.password
    assert not any(password in word for one in running_stack.processes() for word in one.cmdline())


def test_the_other_worker_continues_when_one_is_killed(
    running_stack: CoinmlStack, server: PostgresServer
) -> None:
    """Dependent runs continue, too; the next run does the rest, and nothing twice."""
    databases = Databases(server.address)
    pipeline, hourly = (
        running_stack.start_run("pipeline/mini"),
        running_stack.start_run("collect/hourly"),
    )
    downloads = "SELECT run_id, count(*) FROM attempts WHERE outcome = 'downloaded' GROUP BY run_id"
    wait_for(
        lambda: (
            min(dict(found).values()) >= 4
            if len(found := query(databases.ledger, downloads)) == 2
            else False
        ),
        seconds=300,
        said=running_stack.logs,
    )
    before = running_stack.stack().services["worker-gpu"].pid
    kill([psutil.Process(before), *flow_processes(before)])
    assert running_stack.run_state(pipeline) == "RUNNING"
    assert ended(running_stack, hourly) == "COMPLETED", running_stack.logs()

    # The restarted worker embeds the new videos and trains; the training is killed.
    training = "SELECT run_uuid FROM runs WHERE status = 'RUNNING'"
    cut_off = wait_for(
        lambda: query(databases.mlflow, training), seconds=LONG_S, said=running_stack.logs
    )
    running = {"state": {"type": {"any_": ["RUNNING"]}}}
    (run,) = running_stack.flow_runs(flows={"name": {"any_": ["train"]}}, flow_runs=running)
    after = running_stack.stack().services["worker-gpu"].pid
    assert after != before
    kill(flow_processes(after))
    assert ended(running_stack, run["id"], within_s=60) == "CRASHED"
    assert ended(running_stack, pipeline, within_s=SILENT_S + 120) == "CRASHED"

    assert ended(running_stack, running_stack.start_run("pipeline/mini")) == "COMPLETED", (
        running_stack.logs()
    )
    twice = (
        "SELECT video_id FROM attempts WHERE outcome = 'downloaded' "
        "GROUP BY video_id HAVING count(*) > 1"
    )
    assert query(databases.ledger, twice) == []
    leases = "SELECT DISTINCT lease_owner FROM videos WHERE lease_owner IS NOT NULL"
    assert all(is_dead(owner) for (owner,) in query(databases.ledger, leases))
    waiting = "SELECT 1 FROM videos WHERE state = 'pending'"
    assert query(databases.ledger, waiting) == []
    states = dict(query(databases.mlflow, "SELECT run_uuid, status FROM runs"))
    assert {states[run_id] for (run_id,) in cut_off} == {"KILLED"}
    assert "RUNNING" not in states.values()


def test_a_worker_s_run_is_in_all_three_databases(
    running_stack: CoinmlStack, server: PostgresServer
) -> None:
    databases = Databases(server.address)
    assert count(databases.prefect, "flow_run") > 3
    assert count(databases.mlflow, "model_versions") == 2
    assert count(databases.ledger, "videos") >= 240
    # Other commands use the databases, and no database file was created.
    status = running_stack.answer("status", "--dataset", "mini")
    assert status["downloaded"] >= 240
    assert running_stack.answer("registry", "--dataset", "mini")
    stray = {path.name for path in running_stack.home.rglob("*.db")}
    assert not {"mlflow.db", "prefect.db", "ledger.db"} & stray


def test_only_the_owner_s_record_has_the_password(running_stack: CoinmlStack) -> None:
    assert with_password() == []
    holders = [
        path
        for path in running_stack.home.rglob("*")
        if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    assert holders == [running_stack.home / "data" / "stack" / "stack.json"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    for command in (("up",), ("ui", "--no-open"), ("status", "--dataset", "mini"), ("doctor",)):
        done = running_stack.coinml(*command)
        assert PASSWORD not in done.stdout + done.stderr, command


def test_the_password_is_not_in_the_databases(
    running_stack: CoinmlStack, server: PostgresServer
) -> None:
    databases = Databases(server.address)
    for url in (databases.prefect, databases.mlflow, databases.ledger):
        plain = url.replace("+asyncpg", "").replace("+psycopg", "")
        with psycopg.connect(plain) as connection:
            tables: Any = connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' "
                "AND table_type = 'BASE TABLE'"
            ).fetchall()
            assert tables
            for (table,) in tables:
                found: Any = connection.execute(
                    f'SELECT count(*) FROM "{table}" AS t WHERE t::text LIKE %s'.encode(),
                    (f"%{PASSWORD}%",),
                ).fetchone()
                assert found[0] == 0, table


def test_commands_use_the_same_ledger_while_the_stack_is_down(running_stack: CoinmlStack) -> None:
    before = running_stack.answer("status", "--dataset", "mini")
    running_stack.answer("down")
    after = running_stack.answer("status", "--dataset", "mini")
    assert after["downloaded"] == before["downloaded"]
