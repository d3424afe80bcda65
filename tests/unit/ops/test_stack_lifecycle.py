"""Starting and stopping a stack that an earlier version of coinml has left running."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from coinml.errors import InvalidInputError, LocalError
from coinml_ops.prefect_server.local_server import LocalPrefect
from coinml_ops.stack import lifecycle, record, running_processes
from coinml_ops.stack.lifecycle import StackOptions
from coinml_ops.stack.record import Process, Stack
from coinml_ops.stack.services import MARK, SERVICE

NAMES = ("prefect", "mlflow", "metrics", "worker-network", "worker-gpu")
OUTDATED = "coinml.stack.supervisor"


@pytest.fixture
def outdated(tmp_path: Path) -> Iterator[Stack]:
    """A running stack whose supervisor was started from a module that is gone by now."""

    def run(*command: str, **variables: str) -> Process:
        child = subprocess.Popen(command, env=os.environ | {MARK: tmp_path.name} | variables)
        children.append(child)
        return Process.of(child.pid)

    children: list[subprocess.Popen[bytes]] = []
    stack = Stack(
        id=tmp_path.name,
        home=str(tmp_path),
        guarded=True,
        supervisor=run(sys.executable, "-c", "import time; time.sleep(100)", OUTDATED),
        services={name: run("sleep", "100", **{SERVICE: name}) for name in NAMES},
    )
    record.write(stack)
    yield stack
    lifecycle.stop(tmp_path)
    for child in children:
        child.kill()
        child.wait()


def test_up_replaces_the_supervisor_of_another_version(outdated: Stack, tmp_path: Path) -> None:
    stack, running = lifecycle.start(tmp_path)
    assert running
    now = record.read(tmp_path)
    assert now is not None
    assert now.up()
    assert now.supervisor is not None
    assert lifecycle.SUPERVISOR in psutil.Process(now.supervisor.pid).cmdline()
    assert outdated.supervisor is not None
    assert not outdated.supervisor.alive()
    # The services, and with them the runs that are under way, go on.
    assert (stack.services, now.services) == (outdated.services, outdated.services)
    assert all(one.alive() for one in now.services.values())
    # The supervisor of this version stays.
    lifecycle.start(tmp_path)
    again = record.read(tmp_path)
    assert again is not None
    assert again.supervisor == now.supervisor
    assert set(lifecycle.stop(tmp_path)) == set(NAMES)
    assert running_processes.of_stack(stack.id) == []


def test_up_ends_services_that_ask_for_no_password(outdated: Stack, tmp_path: Path) -> None:
    record.update(tmp_path, guarded=False)
    assert lifecycle.is_open(tmp_path)
    stack, running = lifecycle.start(tmp_path)
    assert not running
    assert stack.guarded
    assert (stack.prefect_port, stack.mlflow_port) == (outdated.prefect_port, outdated.mlflow_port)
    assert not any(one.alive() for one in outdated.services.values())
    assert not lifecycle.is_open(tmp_path)
    now = record.read(tmp_path)
    assert now is not None
    assert now.up()


def test_settings_that_need_a_restart_leave_the_supervisor_alone(
    outdated: Stack, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match="coinml down"):
        lifecycle.start(tmp_path, StackOptions(host="0.0.0.0"))
    assert outdated.supervisor is not None
    assert outdated.supervisor.alive()


def test_down_ends_a_stack_of_another_version(outdated: Stack, tmp_path: Path) -> None:
    assert set(lifecycle.stop(tmp_path)) == set(NAMES)
    assert running_processes.of_stack(outdated.id) == []
    now = record.read(tmp_path)
    assert now is not None
    assert (now.supervisor, now.services) == (None, {})


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ledger", "data/ledger.db"),
        ("mlflow", "mlflow.db"),
        ("prefect", "data/prefect/prefect.db"),
    ],
)
def test_no_server_is_started_on_an_empty_database(tmp_path: Path, name: str, path: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).touch()
    with pytest.raises(LocalError, match=f"{path} is empty.*coinml restore PLACE --only {name}"):
        lifecycle.start(tmp_path)
    assert record.read(tmp_path) is None
    if name == "prefect":
        with pytest.raises(LocalError, match="--only prefect"):
            LocalPrefect(tmp_path / "data" / "prefect").start()
        assert not (tmp_path / "data" / "prefect" / "users").exists()
