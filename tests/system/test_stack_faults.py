"""A stack whose processes are killed or hang, and one that ends, is refused or moves."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from coinml.runtime.process_identity import process_start
from coinml_ops.stack import health, running_processes
from coinml_ops.stack.record import Process
from tests.helpers.coinml_stack import (
    COMMAND,
    PREFECT,
    SERVICES,
    CoinmlStack,
    wait_for,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


def test_killed_services_are_restarted(running_stack: CoinmlStack) -> None:
    before = running_stack.stack().services
    for process in before.values():
        os.kill(process.pid, signal.SIGKILL)
    wait_for(
        lambda: (
            running_stack.are_up() == SERVICES and not _same(before, running_stack.stack().services)
        ),
        seconds=180,
        said=running_stack.logs,
    )
    assert {one.restarts for one in running_stack.stack().services.values()} == {1}


def test_services_of_a_killed_supervisor_are_adopted(running_stack: CoinmlStack) -> None:
    before = running_stack.stack()
    assert before.supervisor is not None
    os.kill(before.supervisor.pid, signal.SIGKILL)
    wait_for(lambda: not running_stack.stack().up(), seconds=10)
    os.kill(before.services["worker-gpu"].pid, signal.SIGKILL)
    answer = running_stack.up()
    assert answer["was_running"] is True
    after = running_stack.stack()
    assert after.up()
    assert _same(before.services, after.services) == SERVICES - {"worker-gpu"}
    assert running_stack.are_up() == SERVICES


def test_what_hangs_is_said_by_doctor_and_replaced(running_stack: CoinmlStack) -> None:
    """A stopped process lives and answers nothing."""
    before = running_stack.stack()
    assert before.supervisor is not None
    # Without it, what hangs goes on to hang while doctor looks.
    os.kill(before.supervisor.pid, signal.SIGSTOP)
    for name in ("worker-network", "mlflow", "metrics"):
        _stop(running_stack, name)
    wait_for(lambda: _failed(running_stack) >= {"workers", "mlflow"}, seconds=240)
    # Another supervisor takes the place of the stopped one, and `up` waits until all answer.
    answer = running_stack.up()
    assert answer["was_running"] is True
    assert not before.supervisor.alive()
    after = running_stack.stack().services
    assert _same(before.services, after) == {"prefect", "worker-gpu"}
    assert running_stack.are_up() == SERVICES
    wait_for(lambda: not _failed(running_stack) & {"workers", "mlflow"}, seconds=120)


def test_a_server_that_hangs_is_replaced(running_stack: CoinmlStack) -> None:
    before = running_stack.stack().services
    _stop(running_stack, "prefect")
    wait_for(lambda: not before["prefect"].alive(), seconds=180, said=running_stack.logs)
    wait_for(lambda: running_stack.are_up() == SERVICES, seconds=180, said=running_stack.logs)
    # The workers waited for it: nothing else is taken for hanging.
    assert _same(before, running_stack.stack().services) == SERVICES - {"prefect"}


def test_runs_that_were_killed_are_told_without_another_run(running_stack: CoinmlStack) -> None:
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    wanted = {"occurred": {"since": since}, "event": {"name": ["coinml.failed"]}}
    (told,) = wait_for(
        lambda: running_stack.api("/events/filter", {"filter": wanted})["events"],
        seconds=300,
        said=running_stack.logs,
    )
    assert told["payload"]["title"] == "audit/monthly: failed"
    assert "its process was killed" in told["payload"]["text"]


def test_a_worker_runs_a_deployment(running_stack: CoinmlStack) -> None:
    run = subprocess.run(
        [PREFECT, "deployment", "run", "pipeline/mini", "--watch"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        cwd=running_stack.home,
        env=running_stack.client_environment,
    )
    assert run.returncode == 0, run.stdout + run.stderr + running_stack.logs()
    (done,) = [one for one in running_stack.flow_runs() if one["name"].startswith("pipeline")]
    assert done["state_type"] == "COMPLETED"
    registry = running_stack.answer("registry", "--dataset", "mini")
    assert registry


def test_after_a_power_cut_no_run_stays_running(running_stack: CoinmlStack) -> None:
    """Everything is killed at once, with a run in progress; only a child of MLflow's goes on."""
    run_id = running_stack.start_run("pipeline/mini")
    wait_for(
        lambda: running_stack.run_state(run_id) == "RUNNING", seconds=120, said=running_stack.logs
    )
    triggers = _triggers(running_stack)
    stack = running_stack.stack()
    of_mlflow = running_processes.of_stack(stack.id, service="mlflow")
    children = [one for one in of_mlflow if one.pid != stack.services["mlflow"].pid]
    assert children
    killed = [one for one in running_stack.processes() if one not in children]
    for process in killed:
        process.kill()
    wait_for(lambda: not any(map(psutil.Process.is_running, killed)), seconds=30)
    assert running_stack.up()["was_running"] is False
    assert running_stack.stack().mlflow_port == stack.mlflow_port
    assert not any(map(psutil.Process.is_running, children))
    wait_for(
        lambda: running_stack.run_state(run_id) == "CRASHED", seconds=30, said=running_stack.logs
    )
    # The automations still wait for the runs that a worker of another machine may have had. The
    # next test starts the deployment again: its one slot is free.
    assert _triggers(running_stack) == triggers


def test_down_ends_a_run_and_leaves_no_process(running_stack: CoinmlStack) -> None:
    run_id = running_stack.start_run("pipeline/mini")
    wait_for(
        lambda: running_stack.run_state(run_id) == "RUNNING", seconds=120, said=running_stack.logs
    )
    bystander = subprocess.Popen(["sleep", "600"])
    others = {process.pid for process in running_stack.processes()}
    assert len(others) > len(SERVICES) + 1
    stopped = running_stack.answer("down")
    assert set(stopped["stopped"]) == SERVICES
    assert running_stack.processes() == []
    assert bystander.poll() is None
    bystander.kill()
    assert bystander.wait() != 0
    with sqlite3.connect(running_stack.home / "data" / "prefect" / "prefect.db") as connection:
        ((state,),) = connection.execute(
            "SELECT state_type FROM flow_run WHERE replace(id, '-', '') = ?",
            (run_id.replace("-", ""),),
        ).fetchall()
    # The run is not left as Running: the server outlived it and recorded its end.
    assert state == "CRASHED"
    assert running_stack.coinml("ui").returncode == 1
    again = running_stack.coinml("down")
    assert (again.returncode, again.stdout) == (0, "nothing was running\n")


def test_nothing_is_started_for_an_unreadable_dataset(running_stack: CoinmlStack) -> None:
    before = running_stack.stack().dataset
    refused = running_stack.coinml("up", "--dataset", "no-such.json")
    assert refused.returncode == 2
    assert running_stack.stack().dataset == before
    assert "no-such.json" in refused.stderr
    assert running_stack.processes() == []


def test_services_in_the_foreground_end_runs_on_sigterm_and_replace_what_hangs(
    running_stack: CoinmlStack,
) -> None:
    """As systemd and Compose run the services."""
    prefect, mlflow = map(str, running_stack.ports)
    metrics = running_stack.metrics_port
    environment = running_stack.environment | {"PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api"}
    running = {}
    try:
        for name in ("prefect", "mlflow", "metrics", "worker-gpu"):
            running[name] = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "coinml_ops.stack",
                    name,
                    "--prefect-port",
                    prefect,
                    "--mlflow-port",
                    mlflow,
                    "--metrics-port",
                    str(metrics),
                ],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        metrics_health = f"http://127.0.0.1:{metrics}/health"
        for url in (
            f"http://127.0.0.1:{prefect}/api/health",
            f"http://127.0.0.1:{mlflow}/health",
            metrics_health,
        ):
            wait_for(lambda url=url: health.answers(url), seconds=180)  # type: ignore[misc]
        deployed = subprocess.run([COMMAND, "deploy"], env=environment, check=False)
        assert deployed.returncode == 0
        # Its watch has heard it by now: a service that still starts has more time.
        (hanging,) = psutil.Process(running["metrics"].pid).children()
        hanging.suspend()
        run_id = running_stack.start_run("pipeline/mini")
        wait_for(lambda: running_stack.run_state(run_id) == "RUNNING", seconds=180)
        worker = running["worker-gpu"]
        known = [
            worker.pid,
            *(one.pid for one in psutil.Process(worker.pid).children(recursive=True)),
        ]
        assert len(known) > 2
        worker.terminate()
        assert worker.wait(90) == 0
        assert running_stack.run_state(run_id) == "CRASHED"
        assert [pid for pid in known if process_start(pid)] == []
        # What hangs is replaced here, too.
        wait_for(lambda: health.answers(metrics_health), seconds=180)
        assert not hanging.is_running()
    finally:
        for process in running.values():
            process.terminate()
            process.wait(60)


def _stop(running_stack: CoinmlStack, service: str) -> None:
    """Stop a service and its children, as if they hung."""
    for process in running_processes.of_stack(running_stack.stack().id, service=service):
        process.suspend()


def _failed(running_stack: CoinmlStack) -> set[str]:
    """What doctor says has failed."""
    done = running_stack.coinml("doctor", "--json")
    failed = {one["subject"] for one in json.loads(done.stdout) if one["state"] == "failed"}
    assert done.returncode == (1 if failed else 0)
    return failed


def _triggers(running_stack: CoinmlStack) -> dict[str, str]:
    """Ids of the triggers of the automations that mark lost runs, by the automation's name."""
    return {
        one["name"]: one["trigger"]["id"]
        for one in running_stack.api("/automations/filter", {})
        if one["name"].startswith("coinml: a run ")
    }


def test_a_moved_home_comes_up_after_one_command(running_stack: CoinmlStack) -> None:
    there = dataclasses.replace(running_stack, home=running_stack.home.with_name("moved"))
    assert running_stack.coinml("down").returncode == 0
    running_stack.home.rename(there.home)
    try:
        for command in ("up", "ui"):
            refused = there.coinml(command)
            assert refused.returncode == 2
            assert "`coinml move-home`" in refused.stderr
        assert there.answer("move-home")["changed"]["mlflow experiments.artifact_location"]
        assert there.up()["was_running"] is False
        assert there.are_up() == SERVICES
        deployment = there.api("/deployments/name/collect/hourly")
        assert str(running_stack.home) not in str(deployment["parameters"])
        video = next((there.home / "data" / "videos" / "mini").glob("*.mp4"))
        assert there.answer("predict", "--dataset", "mini", str(video))[0]["label"]
        assert not running_stack.home.exists()
    finally:
        there.coinml("down")
        there.home.rename(running_stack.home)


def _same(before: dict[str, Process], after: dict[str, Process]) -> set[str]:
    """The services that still have the same process."""
    return {name for name, one in before.items() if name in after and after[name].pid == one.pid}
