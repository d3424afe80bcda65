"""What no run can tell is told: of runs that were killed, and of runs that nobody takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Crashed
from prefect.variables import Variable

from coinml.runtime.settings import Settings
from coinml_ops.alerts.watch import DeploymentWatch
from coinml_ops.stack.health import Api
from tasks.changes import variable_of

EMBED, COLLECTION = "coinml.deployment.embed/watched", "coinml.collection.toy"
Look = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def _forget_what_was_told() -> Iterator[None]:
    """The server's other tests begin anew."""
    yield
    with get_client(sync_client=True) as client:
        for one in client.request("POST", "/variables/filter", json={}).json():
            if one["name"] in (variable_of(EMBED), variable_of(COLLECTION)):
                client.delete_variable_by_name(one["name"])


@pytest.fixture
def look(deployments: dict[str, UUID]) -> Look:
    """Looks as the metrics do, and returns the events."""
    watch = DeploymentWatch(Settings(), Api(str(PREFECT_API_URL.value())))
    return lambda **later: watch.look(now=datetime.now(UTC) + timedelta(**later))


def run(deployment: UUID, state: Any) -> None:
    with get_client(sync_client=True) as client:
        made = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(made.id, state, force=True)


def on_server(resource: str) -> list[tuple[str, str]]:
    """Event and text of what the server was told of something, oldest first."""
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    wanted = {"occurred": {"since": since}, "resource": {"id": [resource]}, "order": "ASC"}
    with get_client(sync_client=True) as client:
        body = {"filter": wanted, "limit": 50}
        found = client.request("POST", "/events/filter", json=body).json()["events"]
    return [(one["event"], one["payload"]["text"]) for one in found]


def await_events(resource: str, number: int) -> list[tuple[str, str]]:
    deadline = time.monotonic() + 60
    while len(found := on_server(resource)) < number and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def test_runs_that_were_killed_are_told_without_another_run(
    deployments: dict[str, UUID], look: Look
) -> None:
    assert look() == []
    for _ in range(2):
        run(deployments["embed"], Crashed(message="its process was killed"))
    # A run that has just ended tells it itself.
    assert look() == []
    assert look() == ["coinml.failed"]
    assert look() == []
    known: Any = Variable.get(variable_of(EMBED))
    assert known == {"resource": EMBED, "troubles": ["coinml.failed"]}
    run(deployments["embed"], Completed())
    assert [look(), look(), look()] == [[], ["coinml.recovered"], []]
    told = await_events(EMBED, 2)
    assert [event for event, _ in told] == ["coinml.failed", "coinml.recovered"]
    assert told[0][1] == "the last 2 runs have failed: its process was killed"


def test_a_schedule_that_nobody_runs_is_told(deployments: dict[str, UUID], look: Look) -> None:
    # Its runs are late: no worker takes them.
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(deployments["collect"])
    assert [look(), look()] == [[], []]
    assert [look(days=3), look(days=3), look(days=3)] == [[], ["coinml.stalled"], []]
    ((event, text),) = await_events(COLLECTION, 1)
    assert event == "coinml.stalled"
    assert "videos are due, and no source has answered" in text
    # Only a run learns that it is over.
    assert [look(), look()] == [[], []]
