"""`coinml up`, `ui` and `down` with real servers and workers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from coinml.tracking.mlflow_store import MlflowStore
from coinml_ops.access.password import client_variables
from coinml_ops.stack import record
from tests.helpers.coinml_stack import (
    COMMAND,
    PREFECT,
    SERVICES,
    CoinmlStack,
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
