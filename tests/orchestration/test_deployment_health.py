"""What doctor and metrics say of deployments, from a real server and a real ledger."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from coinml.runtime.settings import Settings
from coinml_ops.deployments.health import find_troubles
from coinml_ops.doctor.servers import check_runs
from coinml_ops.metrics.prefect_metrics import ask
from coinml_ops.stack.health import Api

NOW = datetime.now(UTC)


def run(deployment: UUID, state: Any) -> None:
    with get_client(sync_client=True) as client:
        made = client.create_flow_run_from_deployment(deployment)
        client.set_flow_run_state(made.id, state, force=True)


def troubles(name: str, *, after_days: float = 0.0) -> list[str]:
    api = partial(ask, Api(str(PREFECT_API_URL.value())))
    found = find_troubles(Settings(), api, now=NOW + timedelta(days=after_days))
    return list(found[f"{name}/watched"])


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
    assert "embed/watched: the last 2 runs have failed" in finding.text
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
