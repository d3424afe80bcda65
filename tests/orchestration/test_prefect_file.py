"""`prefect.yaml`, and what `coinml deploy` creates on a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events import DeploymentEventTrigger
from prefect.flows import load_flow_from_entrypoint
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL
from prefect.utilities.callables import parameter_schema

from coinml.errors import LocalError
from coinml_cli.model_options import MODELS
from coinml_ops.deployments import apply, automations, pull_step
from coinml_ops.deployments.edits_in_file import edits_in
from tasks import LOGGED

ROOT = Path(__file__).resolve().parents[2]
CONTENT = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))
DEPLOYMENTS = {apply.full_name(config): config for config in CONTENT["deployments"]}
SCHEDULED = {
    "collect/hourly": {"hourly": "7 * * * *"},
    "train/on-growth": {"weekly": "30 5 * * 0"},
    "reprocess/nightly": {"nightly": "30 2 * * *"},
    "reprobe/monthly": {"monthly": "0 4 1 * *"},
    "audit/monthly": {"monthly": "0 6 2 * *"},
    "score/on-new": {"hourly": "37 * * * *"},
    "retention/daily": {"daily": "40 3 * * *"},
}
STRATEGIES = {
    "collect/hourly": "CANCEL_NEW",
    "embed/on-new": "ENQUEUE",
    "train/on-growth": "ENQUEUE",
    "reprocess/nightly": "CANCEL_NEW",
    "reprobe/monthly": "CANCEL_NEW",
    "audit/monthly": "CANCEL_NEW",
    "score/on-new": "CANCEL_NEW",
    "retention/daily": "CANCEL_NEW",
    "pretrain/by-hand": "ENQUEUE",
    "pipeline/mini": "ENQUEUE",
    "pipeline/coin": "ENQUEUE",
}


def flow_of(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Flow[..., Any]:
    """The flow as a worker loads it; a failed import raises instead of giving a placeholder."""
    monkeypatch.chdir(ROOT)
    return load_flow_from_entrypoint(config["entrypoint"], use_placeholder_flow=False)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_failures_of_the_deployment_are_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = flow_of(DEPLOYMENTS[name], monkeypatch)
    hooks = (found.on_failure_hooks, found.on_crashed_hooks, found.on_completion_hooks)
    assert [[one.__module__ for one in some] for some in hooks] == [["tasks.alerts"]] * 3


def test_these_deployments_exist_with_their_schedules() -> None:
    assert set(DEPLOYMENTS) == set(STRATEGIES)
    assert {
        name: {one["slug"]: one["cron"] for one in config["schedules"]}
        for name, config in DEPLOYMENTS.items()
        if "schedules" in config
    } == SCHEDULED
    for name, config in DEPLOYMENTS.items():
        assert config["concurrency_limit"] == {"limit": 1, "collision_strategy": STRATEGIES[name]}
        assert config["work_pool"]["name"] == apply.POOL
        assert config["work_pool"]["work_queue_name"] in apply.QUEUES
        assert automations.TAG in config["tags"]
        assert len(config["description"]) > 20


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_flow_of_a_deployment_loads_and_accepts_its_parameters(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DEPLOYMENTS[name]
    flow = flow_of(config, monkeypatch)
    assert f"{flow.name}/{config['name']}" == name
    parameters = config["parameters"]
    assert flow.validate_parameters(parameters)
    for schedule in config.get("schedules", ()):
        assert flow.validate_parameters(parameters | schedule.get("parameters", {}))
    for trigger in config.get("triggers", ()):
        assert set(trigger["parameters"]) <= set(parameter_schema(flow).properties)


def test_nothing_is_removed_that_a_person_has_not_agreed_to() -> None:
    assert DEPLOYMENTS["retention/daily"]["parameters"] == {"delete": False}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_the_form_describes_every_parameter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = parameter_schema(flow_of(DEPLOYMENTS[name], monkeypatch)).model_dump()
    fields = {f"{name}.{key}": field for key, field in schema["properties"].items()}
    for model, definition in schema["definitions"].items():
        fields |= {f"{model}.{key}": field for key, field in definition["properties"].items()}
    assert ("Selection.limit" in fields) is (name != "retention/daily")
    assert len(fields) > 3
    unexplained = [
        key for key, field in fields.items() if not field.get("title") or not field["description"]
    ]
    assert unexplained == []
    for model, definition in schema["definitions"].items():
        described = getattr(import_module(MODELS[model]), model).model_fields
        assert {key: field["description"] for key, field in definition["properties"].items()} == {
            key: field.description for key, field in described.items()
        }


@pytest.mark.parametrize("path", sorted((ROOT / "flows").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_no_flow_has_more_than_eight_parameters(path: Path) -> None:
    flow = getattr(import_module(f"flows.{path.stem}"), path.stem)
    parameters = parameter_schema(flow).properties
    assert 0 < len(parameters) <= (7 if flow.name == "reprocess" else 8)


def test_a_trigger_passes_on_the_payload_of_the_event() -> None:
    from prefect.server.events.actions import RunDeployment

    triggers = [
        (config, trigger)
        for config in CONTENT["deployments"]
        for trigger in config.get("triggers", ())
    ]
    assert [trigger["expect"] for _, trigger in triggers] == [
        ["coinml.collected"],
        ["coinml.embedded"],
    ]
    for config, trigger in triggers:
        assert DeploymentEventTrigger.model_validate(trigger).parameters == trigger["parameters"]
        assert RunDeployment(source="inferred", parameters=trigger["parameters"])
        assert not set(trigger["parameters"]) & {"min_new", "ask_gate"}, config["name"]


def test_a_worker_runs_its_installed_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "COINML_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (step,) = CONTENT["pull"]
    assert step == {f"{pull_step.__name__}.{pull_step.find_code.__name__}": {}}
    before = dict(os.environ)
    try:
        assert pull_step.find_code() == {"directory": str(ROOT)}
        assert os.environ["COINML_HOME"] == str(ROOT)
        os.environ["COINML_HOME"] = str(tmp_path)
        assert pull_step.find_code() == {"directory": str(ROOT)}
        assert os.environ["COINML_HOME"] == str(tmp_path)
        # Installed from a wheel, there is no checkout whose folder could be meant.
        del os.environ["COINML_HOME"]
        monkeypatch.setattr(pull_step, "PROJECT", tmp_path)
        with pytest.raises(LocalError, match="COINML_HOME"):
            pull_step.find_code()
    finally:
        os.environ.clear()
        os.environ.update(before)


def deploy(home: Path, api: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("COINML", "PREFECT", "MLFLOW"))
    }
    environment |= {"COINML_HOME": str(home), "PREFECT_HOME": str(home / "no-profile")}
    if api:
        environment["PREFECT_API_URL"] = api
    return subprocess.run(
        [str(Path(sys.executable).parent / "coinml"), "deploy", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=200,
    )


def test_deploy_without_a_server_says_what_to_do(tmp_path: Path) -> None:
    unnamed = deploy(tmp_path, None)
    assert unnamed.returncode == 2
    assert "coinml up" in unnamed.stderr
    assert "PREFECT_API_URL" in unnamed.stderr
    silent = deploy(tmp_path, "http://somebody:secret@127.0.0.1:9/api")
    assert silent.returncode == 1
    assert "http://127.0.0.1:9/api" in silent.stderr
    assert "secret" not in silent.stderr
    missing = deploy(tmp_path, "http://127.0.0.1:9/api", "--dataset", "no-such.json")
    assert missing.returncode == 2
    assert "no-such.json" in missing.stderr


def schedules(client: SyncPrefectClient, name: str) -> dict[str | None, bool]:
    return {one.slug: one.active for one in client.read_deployment_by_name(name).schedules}


@pytest.fixture
def _delete_automations() -> Iterator[None]:
    """Delete the automations from the shared test server: other tests' runs would trigger them."""
    yield
    with get_client(sync_client=True) as client:
        for automation in client.read_automations():
            client.delete_automation(automation.id)


@pytest.mark.usefixtures("_delete_automations")
def test_deploying_again_keeps_what_was_paused(
    tmp_path: Path, coin: tuple[Path, list[str]]
) -> None:
    api = PREFECT_API_URL.value()
    annotations = str(coin[0] / "COIN.json")
    call = ("--dataset", annotations, "--name", "toy", "--json")
    first = deploy(tmp_path, api, *call)
    assert first.returncode == 0, first.stderr
    applied = json.loads(first.stdout)["applied"]
    assert {one["name"] for one in applied if one["kind"] == "deployment"} == set(DEPLOYMENTS)
    assert all(one["made"] for one in applied if one["kind"] != "limit")

    trigger = DEPLOYMENTS["embed/on-new"]["triggers"][0]["name"]
    silence = automations.automations()[0].name
    with get_client(sync_client=True) as client:
        nightly = client.read_deployment_by_name("reprocess/nightly")
        client.update_deployment_schedule(nightly.id, nightly.schedules[0].id, active=False)
        client.pause_deployment(client.read_deployment_by_name("reprobe/monthly").id)
        for name in (trigger, silence):
            client.pause_automation(client.read_automations_by_name(name)[0].id)
        queue = client.read_work_queue_by_name("gpu", work_pool_name=apply.POOL)
        assert queue.concurrency_limit == 1
        client.update_work_queue(queue.id, concurrency_limit=2)

    url = PREFECT_API_DATABASE_CONNECTION_URL.value()
    edits = edits_in(Path(url.removeprefix("sqlite+aiosqlite:///")))
    assert {
        "deployment reprobe/monthly is paused",
        "schedule reprocess/nightly nightly is inactive",
        f"automation {trigger} is disabled",
        "work queue gpu has 2 runs at once",
    } <= set(edits)
    assert not [one for one in edits if "collect/hourly" in one]

    again = deploy(tmp_path, api, *call)
    assert again.returncode == 0, again.stderr
    applied = json.loads(again.stdout)["applied"]
    assert not any(one["made"] for one in applied)
    with get_client(sync_client=True) as client:
        assert schedules(client, "reprocess/nightly") == {"nightly": False}
        assert schedules(client, "collect/hourly") == {"hourly": True}
        assert client.read_deployment_by_name("reprobe/monthly").paused
        assert not client.read_deployment_by_name("collect/hourly").paused
        for name, enabled in ((trigger, False), (silence, False)):
            (automation,) = client.read_automations_by_name(name)
            assert automation.enabled is enabled
        assert (
            client.read_work_queue_by_name("gpu", work_pool_name=apply.POOL).concurrency_limit == 2
        )
        for name, config in DEPLOYMENTS.items():
            deployed = client.read_deployment_by_name(name)
            expected = (
                {"dataset": "mini"}
                if name == "pipeline/mini"
                else {
                    "dataset": annotations,
                    "name": "toy",
                }
            )
            own = {"selection": expected} if "selection" in config["parameters"] else {}
            assert deployed.parameters == config["parameters"] | own
            assert deployed.concurrency_options is not None
            assert deployed.concurrency_options.collision_strategy == STRATEGIES[name]
            assert deployed.job_variables["env"] == {
                "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
                "PREFECT_LOGGING_EXTRA_LOGGERS": ",".join(LOGGED),
                "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            }
            assert deployed.pull_steps == CONTENT["pull"]
