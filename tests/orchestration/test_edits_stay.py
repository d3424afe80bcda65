"""What a person edits on the server, and what `coinml deploy` was given, stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL

from coinml_ops.deployments.apply import full_name, read_file
from coinml_ops.deployments.chosen import read_chosen
from coinml_ops.deployments.edits import variable_of
from tests.orchestration.test_prefect_file import deploy


def forget(client: SyncPrefectClient) -> None:
    """Delete the records of what was applied."""
    for config in read_file()["deployments"]:
        client.delete_variable_by_name(variable_of(full_name(config)))


@pytest.fixture
def _clean_server() -> Iterator[None]:
    """Delete what other tests of the shared server would meet."""
    yield
    with get_client(sync_client=True) as client:
        for automation in client.read_automations():
            client.delete_automation(automation.id)
        for deployment in client.read_deployments():
            client.delete_deployment(deployment.id)
        forget(client)


def applied(home: Path, *options: str) -> dict[tuple[str, str], tuple[str, str, bool]]:
    """The edits that a call lists: (server's, here, kept) by deployment and field."""
    run = deploy(home, PREFECT_API_URL.value(), *options, "--json")
    assert run.returncode == 0, run.stderr
    return {
        (one["deployment"], one["field"]): (one["server"], one["here"], one["kept"])
        for one in json.loads(run.stdout)["edits"]
    }


def on_server(name: str) -> Any:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name)


def edit_hourly() -> None:
    """Edit cron, budget, source, encoder, limit and schedules, as Prefect's form does."""
    with get_client(sync_client=True) as client:
        hourly = client.read_deployment_by_name("collect/hourly")
        client.update_deployment_schedule(
            hourly.id, hourly.schedules[0].id, schedule=CronSchedule(cron="9 9 * * *")
        )
        client.create_deployment_schedules(hourly.id, [(CronSchedule(cron="1 1 * * *"), True)])
        collection = {"budget": 11, "source": "http://127.0.0.1:9/{id}"}
        client.update_deployment(
            hourly.id,
            DeploymentUpdate(
                parameters={**hourly.parameters, "collection": collection},
                concurrency_limit=2,
                tags=["coinml", "collect", "mine"],
            ),
        )
        nightly = client.read_deployment_by_name("reprocess/nightly")
        parameters = {**nightly.parameters, "set_options": {"encoder": "tiny"}}
        client.update_deployment(nightly.id, DeploymentUpdate(parameters=parameters))


@pytest.mark.stack
@pytest.mark.usefixtures("_clean_server")
def test_what_was_edited_on_the_server_stays_until_a_reset(tmp_path: Path) -> None:
    assert applied(tmp_path) == {}
    edit_hourly()

    edits = applied(tmp_path)
    assert edits[("collect/hourly", "schedules.hourly.cron")] == (
        '"9 9 * * *"',
        '"7 * * * *"',
        True,
    )
    assert edits[("collect/hourly", "parameters.collection.budget")] == ("11", "300", True)
    assert edits[("reprocess/nightly", "parameters.set_options.encoder")] == (
        '"tiny"',
        "nothing",
        True,
    )
    assert {name for name, _ in edits} == {"collect/hourly", "reprocess/nightly"}
    hourly = on_server("collect/hourly")
    assert hourly.parameters["collection"] == {"budget": 11, "source": "http://127.0.0.1:9/{id}"}
    assert sorted(one.schedule.cron for one in hourly.schedules) == ["1 1 * * *", "9 9 * * *"]
    assert hourly.global_concurrency_limit.limit == 2
    assert hourly.tags == ["coinml", "collect", "mine"]
    nightly = on_server("reprocess/nightly")
    assert nightly.parameters["set_options"] == {"encoder": "tiny"}

    # What a command changes is applied; what it does not name is an edit at every call.
    edits = applied(tmp_path, "--budget", "5", "--cron", "collect/hourly=3 * * * *")
    assert edits[("collect/hourly", "parameters.collection.budget")] == ("11", "5", False)
    assert edits[("collect/hourly", "schedules.hourly.cron")][2] is False
    assert edits[("collect/hourly", "parameters.collection.source")][2] is True
    assert on_server("collect/hourly").parameters["collection"]["budget"] == 5

    edits = applied(tmp_path, "--reset")
    assert edits
    assert not any(kept for _, _, kept in edits.values())
    hourly = on_server("collect/hourly")
    assert hourly.parameters["collection"] == {"budget": 5}
    assert [one.schedule.cron for one in hourly.schedules] == ["3 * * * *"]
    assert hourly.global_concurrency_limit.limit == 1
    assert applied(tmp_path) == {}


@pytest.mark.stack
@pytest.mark.usefixtures("_clean_server")
def test_options_last_and_reach_each_deployment(
    tmp_path: Path, coin: tuple[Path, list[str]]
) -> None:
    annotations = str(coin[0] / "COIN.json")
    copies = str(coin[0] / "videos")
    options = ("--dataset", annotations, "--name", "toy", "--source", copies)
    applied(tmp_path, *options, "--encoder", "tiny", "--min-new", "7")
    # A server that an earlier version applied to has no record: what is there stays.
    with get_client(sync_client=True) as client:
        forget(client)
        hourly = client.read_deployment_by_name("collect/hourly")
        client.delete_deployment_schedule(hourly.id, hourly.schedules[0].id)
        client.create_deployment_schedules(
            hourly.id,
            [DeploymentScheduleCreate(schedule=CronSchedule(cron="8 8 * * *"), slug="hourly")],
        )
    edits = applied(tmp_path)
    assert [field for _, field in edits] == ["schedules.hourly.cron"]
    for name in ("collect/hourly", "reprocess/nightly", "pipeline/coin"):
        parameters = on_server(name).parameters
        assert parameters["selection"] == {"dataset": annotations, "name": "toy"}
        assert parameters["collection"] == {"budget": 300, "source": copies}
    assert on_server("reprobe/monthly").parameters["download"] == {"source": copies}
    for name in ("embed/on-new", "train/on-growth", "reprocess/nightly", "audit/monthly"):
        assert on_server(name).parameters["set_options"] == {"encoder": "tiny"}
    assert on_server("train/on-growth").parameters["min_new"] == 7
    assert on_server("pipeline/mini").parameters == {"selection": {"dataset": "mini"}}
    assert read_chosen(tmp_path / "data").name == "toy"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cron", "hourly=7 * * * *"), "collect/hourly"),
        (("--cron", "collect/hourly=99 * * * *"), "99 * * * *"),
        (("--cron", "collect/hourly"), "DEPLOYMENT=CRON"),
        (("--source", "relative/folder"), "relative/folder"),
        (("--source", "/no/such/folder"), "/no/such/folder"),
    ],
)
def test_a_choice_that_is_not_allowed_changes_nothing(
    tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    run = deploy(tmp_path, "http://127.0.0.1:9/api", *options)
    assert run.returncode == 2
    assert said in run.stderr
    assert not (tmp_path / "data" / "deployments.yaml").exists()


def test_a_damaged_file_of_choices_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "deployments.yaml"
    for content, said in (("budgett: 3", "budgett"), ("budget: 0", "budget"), ("- 1", "[1]")):
        file.write_text(content)
        run = deploy(tmp_path, "http://127.0.0.1:9/api")
        assert run.returncode == 2
        assert str(file) in run.stderr
        assert said in run.stderr
