"""`coinml up`, `ui` and `down` with real servers and workers."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from coinml.runtime.process_identity import process_start
from coinml.tracking.mlflow_store import MlflowStore
from coinml_ops.access.password import client_variables
from coinml_ops.stack import health, record, running_processes
from coinml_ops.stack.record import Process
from tests.helpers.coinml_stack import (
    COMMAND,
    PREFECT,
    SERVICES,
    CoinmlStack,
    coinml_stack,
    fetch,
    free_port,
    status,
    wait_for,
)

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]

DEPLOYMENTS = {
    "collect/hourly",
    "embed/on-new",
    "train/on-growth",
    "reprocess/nightly",
    "reprobe/monthly",
    "audit/monthly",
    "score/on-new",
    "retention/daily",
    "pretrain/by-hand",
    "pipeline/mini",
    "pipeline/coin",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """Three classes of three short videos."""
    videos = tmp_path_factory.mktemp("clips")
    for number in range(9):
        path = videos / "abc"[number % 3] / f"{number}.mp4"
        path.parent.mkdir(exist_ok=True)
        make_video(path, seconds=0.5, seed=number)
    return videos


@pytest.fixture(scope="module")
def running_stack(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[CoinmlStack]:
    """A stack in a home that was used without servers before."""
    with coinml_stack(tmp_path_factory.mktemp("stack")) as here:
        # A worker counts as hanging after four times as long, so that the test need not wait.
        here.variables["PREFECT_WORKER_HEARTBEAT_SECONDS"] = "10"
        collected = here.coinml("collect", "--dataset", f"folder:{folder}")
        assert collected.returncode == 0, collected.stderr
        store = MlflowStore(
            uri=f"sqlite:///{here.home / 'mlflow.db'}", artifact_root=here.home / "mlartifacts"
        )
        client = store.client()
        run = client.create_run(store.experiment("earlier"), run_name="before any server")
        client.log_metric(run.info.run_id, "val_accuracy", 0.75)
        client.log_text(run.info.run_id, "a,b\n1,2\n", "tables/earlier.csv")
        began = time.monotonic()
        answer = here.up()
        print(f"\nup after {time.monotonic() - began:.1f} s")
        assert answer["was_running"] is False
        for _ in range(2):
            # As runs that were killed: no run of this deployment ends after them.
            crashed = {"type": "CRASHED", "message": "its process was killed"}
            here.start_run("audit/monthly", state=crashed)
        memory = sum(process.memory_info().rss for process in here.processes())
        print(f"{memory / 1e6:.0f} MB in {len(here.processes())} processes")
        yield here
    assert here.processes() == []


def typed(running_stack: CoinmlStack) -> list[dict[str, Any]]:
    """The runs of this file's commands, without scheduled ones."""
    return [one for one in running_stack.flow_runs() if one["name"].startswith("collect clips")]


def test_every_service_answers_and_the_deployments_exist(running_stack: CoinmlStack) -> None:
    assert running_stack.are_up() == SERVICES
    flows = {flow["id"]: flow["name"] for flow in running_stack.api("/flows/filter", {})}
    deployments = running_stack.api("/deployments/filter", {})
    names = {f"{flows[one['flow_id']]}/{one['name']}": one for one in deployments}
    assert set(names) == DEPLOYMENTS
    scheduled = {name for name, one in names.items() if one["schedules"]}
    assert {
        "collect/hourly",
        "reprocess/nightly",
        "reprobe/monthly",
        "audit/monthly",
        "score/on-new",
        "retention/daily",
        "train/on-growth",
    } <= scheduled
    # The servers listen on loopback only.
    for process in running_stack.processes():
        for connection in process.net_connections("inet"):
            if connection.status == "LISTEN":
                assert connection.laddr.ip in ("127.0.0.1", "::1"), process.cmdline()


def test_prometheus_reads_the_metrics_with_the_password(running_stack: CoinmlStack) -> None:
    address = f"{running_stack.stack().metrics_url}/metrics"
    assert status(address)[0] == 401
    assert status(address, Host="evil.example", **running_stack.signed_in)[0] == 400
    wait_for(lambda: b'coinml_worker_online{name="gpu@' in running_stack.get(address), seconds=60)
    text = running_stack.get(address).decode()
    for part in ("ledger", "embeddings", "prefect", "disk"):
        assert f'coinml_part_readable{{part="{part}"}} 1.0' in text


def test_a_second_up_finds_the_stack_running(running_stack: CoinmlStack) -> None:
    before = running_stack.stack().services
    again = running_stack.up()
    assert again["was_running"] is True
    assert again["services"] == {name: one.pid for name, one in before.items()}
    assert running_stack.stack().services == before


def test_other_settings_are_refused_while_it_runs(running_stack: CoinmlStack) -> None:
    other = running_stack.coinml("up", "--prefect-port", str(free_port()))
    assert other.returncode == 2
    assert "coinml down" in other.stderr
    assert running_stack.are_up() == SERVICES


def test_runs_made_without_servers_are_shown_with_their_artifacts(
    running_stack: CoinmlStack, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in client_variables(running_stack.password).items():
        monkeypatch.setenv(name, value)
    (run,) = typed(running_stack)
    assert (run["name"], run["state_type"]) == (f"collect {folder.name} 9/9", "COMPLETED")
    url = running_stack.stack().mlflow_url
    store = MlflowStore(uri=url, artifact_root=running_stack.home / "mlartifacts")
    client = store.client()
    experiment = client.get_experiment_by_name("earlier")
    (earlier,) = client.search_runs([experiment.experiment_id])
    assert earlier.info.run_name == "before any server"
    assert earlier.data.metrics == {"val_accuracy": 0.75}
    (stored,) = (running_stack.home / "mlartifacts").rglob("earlier.csv")
    shown = running_stack.get(
        f"{url}/get-artifact?run_id={earlier.info.run_id}&path=tables/earlier.csv"
    )
    assert shown == stored.read_bytes() == b"a,b\n1,2\n"
    # New artifacts go through the server, where other machines can read them.
    run = client.create_run(store.experiment("later"))
    client.log_text(run.info.run_id, "new", "note.txt")
    assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
    assert running_stack.get(f"{url}/get-artifact?run_id={run.info.run_id}&path=note.txt") == b"new"
    (kept,) = (running_stack.home / "mlartifacts").rglob("note.txt")
    assert kept.read_text() == "new"


def test_other_commands_use_its_servers(running_stack: CoinmlStack, folder: Path) -> None:
    before = len(typed(running_stack))
    done = running_stack.coinml("collect", "--dataset", f"folder:{folder}")
    assert done.returncode == 0, done.stderr
    assert len(typed(running_stack)) == before + 1
    assert not (running_stack.home / "data" / "prefect" / "server.json").exists()


def test_foreign_host_names_and_origins_are_refused(running_stack: CoinmlStack) -> None:
    stack = running_stack.stack()
    user = running_stack.signed_in
    page = f"{stack.prefect_api}/health"
    assert status(page)[0] == 200
    assert status(page.replace("127.0.0.1", "localhost"))[0] == 200
    for host in ("evil.example", f"evil.example:{stack.prefect_port}", "127.0.0.1.evil.example"):
        assert status(page, Host=host)[0] == 400
    code, headers = status(page, Origin="http://evil.example")
    assert (code, "access-control-allow-origin" in headers) == (403, False)
    own = f"http://localhost:{stack.prefect_port}"
    code, headers = status(page, Origin=own)
    assert (code, headers["access-control-allow-origin"]) == (200, own)
    search = f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert status(search, **user)[0] == 200
    for host in ("evil.example", "10.evil.example"):
        assert status(search, Host=host, **user)[0] == 403
    code, headers = status(search, Origin="http://evil.example", **user)
    assert "access-control-allow-origin" not in headers


def test_a_page_of_another_site_gets_no_web_socket(running_stack: CoinmlStack) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    socket = f"ws://127.0.0.1:{running_stack.stack().prefect_port}/api/events/out"
    with connect(socket, subprotocols=["prefect"]):
        pass
    with pytest.raises(InvalidStatus) as refused:
        connect(socket, subprotocols=["prefect"], origin="http://evil.example")
    assert refused.value.response.status_code == 403


def test_ui_prints_the_addresses(running_stack: CoinmlStack) -> None:
    stack = running_stack.stack()
    both = {"prefect": stack.prefect_url, "mlflow": stack.mlflow_url}
    assert running_stack.answer("ui", "--no-open") == both
    assert running_stack.coinml("ui", "mlflow").stdout.split() == ["mlflow", stack.mlflow_url]
    assert running_stack.coinml("ui", "grafana").returncode == 2
    assert b"<html" in fetch(stack.prefect_url + "/").lower()
    assert b"<html" in running_stack.get(stack.mlflow_url + "/").lower()


def test_prefect_and_mlflow_run_against_its_servers(running_stack: CoinmlStack) -> None:
    """By `coinml prefect` and `coinml mlflow`, and by a fresh shell with the printed line."""
    inspected = running_stack.coinml("prefect", "deployment", "inspect", "pipeline/mini")
    assert inspected.returncode == 0, inspected.stderr
    assert "'work_pool_name': 'coinml'" in inspected.stdout
    assert running_stack.coinml("mlflow", "experiments", "search").returncode == 0
    # Their own options and exit codes, too.
    assert "Usage: prefect" in running_stack.coinml("prefect", "--help").stdout
    assert running_stack.coinml("prefect", "deployment", "inspect", "no/such").returncode == 1
    printed = running_stack.coinml("ui", "--no-open").stdout
    (line,) = re.findall(r"^shell\s+(.*)$", printed, re.MULTILINE)
    shell = subprocess.run(
        ["sh", "-c", f"{line} && {PREFECT} deployment inspect pipeline/mini"],
        env=running_stack.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert shell.returncode == 0, shell.stderr
    assert "'work_pool_name': 'coinml'" in shell.stdout


def test_only_the_owner_can_read_the_record(running_stack: CoinmlStack) -> None:
    path = record.stack_dir(running_stack.home) / "stack.json"
    assert path.stat().st_mode & 0o777 == 0o600


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


def test_two_concurrent_ups_start_one_stack(running_stack: CoinmlStack) -> None:
    running_stack.coinml("down")
    assert running_stack.processes() == []
    prefect, mlflow = map(str, running_stack.ports)
    call = [COMMAND, "up", "--prefect-port", prefect, "--mlflow-port", mlflow]
    call += ["--metrics-port", str(running_stack.metrics_port)]
    both = [
        subprocess.Popen(
            call,
            env=running_stack.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [one.communicate(timeout=400)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0], errors
    assert sum("it is running" in text for text in errors) == 1
    names = [process.cmdline() for process in running_stack.processes()]
    assert sum("coinml_ops.stack.supervisor" in line for line in names) == 1
    assert sum("coinml_ops.prefect_server.process" in line for line in names) == 1


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
