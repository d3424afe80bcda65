"""What doctor and metrics say of deployments, from a real server and a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from coinml.ledger import Ledger
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml_ops.deployments.health import find_troubles
from coinml_ops.doctor.servers import check_runs
from coinml_ops.metrics.prefect_metrics import ask
from coinml_ops.stack.health import Api
from flows.collect import collect
from flows.embed import embed

NOW = datetime.now(UTC)


@pytest.fixture
def deployments(home: Path, selection: Selection) -> Iterator[dict[str, UUID]]:
    """A scheduled collection with videos to come, and an embedding."""
    with Ledger.of(Settings()) as ledger:
        ledger.register(selection.load(home / "data"))
    schedule = DeploymentScheduleCreate(schedule=CronSchedule(cron="7 * * * *"), active=True)
    made = {}
    with get_client(sync_client=True) as client:
        for some_flow, schedules in ((collect, [schedule]), (embed, [])):
            made[some_flow.name] = client.create_deployment(
                flow_id=client.create_flow(some_flow),
                name="health",
                tags=["coinml"],
                schedules=schedules,
                parameters={"selection": selection.model_dump(mode="json")},
            )
    yield made
    with get_client(sync_client=True) as client:
        for one in made.values():
            client.delete_deployment(one)


def run(deployment: UUID, state: Any) -> None:
    with get_client(sync_client=True) as client:
        made = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(made.id, state, force=True)


def troubles(name: str, *, after_days: float = 0.0) -> list[str]:
    api = partial(ask, Api(str(PREFECT_API_URL.value())))
    found = find_troubles(Settings(), api, now=NOW + timedelta(days=after_days))
    return list(found[f"{name}/health"])


def test_two_failed_runs_in_a_row_are_not_well(deployments: dict[str, UUID]) -> None:
    for state, expected in (
        (Failed(), []),
        (Completed(), []),
        (Failed(), []),
        (Failed(), ["failed"]),
    ):
        run(deployments["embed"], state)
        assert troubles("embed") == expected
    assert troubles("collect") == []
    finding = check_runs(Settings(), str(PREFECT_API_URL.value()))
    assert (finding.state, finding.subject) == ("failed", "runs")
    assert "embed/health: the last 2 runs have failed" in finding.text
    run(deployments["embed"], Completed())
    assert troubles("embed") == []


def test_a_schedule_whose_runs_bring_nothing_has_stalled(deployments: dict[str, UUID]) -> None:
    collection = deployments["collect"]
    run(collection, Completed())
    assert troubles("collect") == []
    assert troubles("collect", after_days=3) == ["stalled"]
    # A run that is to start is no sign; a pause by somebody ends the expectation.
    with get_client(sync_client=True) as client:
        client.pause_deployment(collection)
    assert troubles("collect", after_days=3) == []
    assert check_runs(Settings(), "http://127.0.0.1:9/api").state == "warning"
