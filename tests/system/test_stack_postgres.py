"""The stack on PostgreSQL: all three stores there, and its password nowhere to be seen."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from standing import COMMAND, SERVICES, Standing, wait_for

from coinml.stack.postgres import Databases

if TYPE_CHECKING:
    from postgres import PostgresServer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

PASSWORD = "hush-hush-7381"


@pytest.fixture(scope="module")
def server(new_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    return new_postgres(PASSWORD)


@pytest.fixture(scope="module")
def standing(
    tmp_path_factory: pytest.TempPathFactory, server: PostgresServer
) -> Iterator[Standing]:
    """A stack that was told of the server on its command line."""
    here = Standing(tmp_path_factory.mktemp("postgres") / "home")
    here.home.mkdir()
    prefect, mlflow = map(str, here.ports)
    call = [COMMAND, "up", "--postgres", server.address, "--prefect-port", prefect,
            "--mlflow-port", mlflow]  # fmt: skip
    with (here.home / "up.log").open("w") as log:
        up = subprocess.Popen(call, env=here.environment, stdout=log, stderr=log, cwd=here.home)
        # Once it has read it, not even its own command line has it.
        wait_for(lambda: (here.home / "data").is_dir() or up.poll() is not None, seconds=60)
        while up.poll() is None:
            assert with_password() == []
            try:
                up.wait(1)
            except subprocess.TimeoutExpired:
                continue
    assert up.returncode == 0, (here.home / "up.log").read_text() + here.logs()
    yield here
    here.coinml("down")
    assert here.processes() == []


def with_password() -> list[list[str]]:
    """Command lines that everyone on this machine can read it from."""
    lines = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if any(PASSWORD in word for word in line):
            lines.append(line)
    return lines


def count(url: str, table: str) -> int:
    plain = url.replace("+asyncpg", "").replace("+psycopg", "")
    with psycopg.connect(plain) as connection:
        row: Any = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    return int(row[0])


def test_all_of_it_answers(standing: Standing) -> None:
    assert standing.are_up() == SERVICES
    assert standing.stack().postgres
    # A second one needs not be told again.
    again = standing.up()
    assert again["was_running"] is True
    assert again["database"].startswith("PostgreSQL at 127.0.0.1")


def test_a_run_through_a_worker_is_in_all_three(standing: Standing, server: PostgresServer) -> None:
    run_id = standing.start_run("pipeline/mini")
    state = wait_for(
        lambda: (found := standing.run_state(run_id)) not in ("SCHEDULED", "PENDING", "RUNNING")
        and found,
        seconds=600, said=standing.logs,
    )  # fmt: skip
    assert state == "COMPLETED", standing.logs()
    databases = Databases(server.address)
    assert count(databases.prefect, "flow_run") > 3
    assert count(databases.mlflow, "model_versions") == 2
    assert count(databases.ledger, "videos") >= 240
    # Other commands find them, and no file was made beside.
    status = standing.answer("status", "--dataset", "mini")
    assert status["downloaded"] >= 240
    assert standing.answer("registry", "--dataset", "mini")
    stray = {path.name for path in standing.home.rglob("*.db")}
    assert not {"mlflow.db", "prefect.db", "ledger.db"} & stray


def test_the_password_is_nowhere_to_be_seen(standing: Standing) -> None:
    assert with_password() == []
    holders = [
        path
        for path in standing.home.rglob("*")
        if path.is_file() and PASSWORD.encode() in path.read_bytes()
    ]
    assert holders == [standing.home / "data" / "stack" / "stack.json"]
    assert holders[0].stat().st_mode & 0o777 == 0o600
    for command in (("up",), ("ui", "--no-open"), ("status", "--dataset", "mini"), ("doctor",)):
        done = standing.coinml(*command)
        assert PASSWORD not in done.stdout + done.stderr, command


def test_the_password_is_not_in_the_databases(standing: Standing, server: PostgresServer) -> None:
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


def test_the_ledger_stays_there_while_it_is_down(standing: Standing) -> None:
    before = standing.answer("status", "--dataset", "mini")
    standing.answer("down")
    after = standing.answer("status", "--dataset", "mini")
    assert after["downloaded"] == before["downloaded"]
