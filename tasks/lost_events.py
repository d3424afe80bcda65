"""Emits events again that started no run: the server drops some while its database is busy."""

from __future__ import annotations

import hashlib
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
)
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound
from prefect.runtime import deployment
from prefect.types import DateTime
from prefect.variables import Variable

PREFIX = "coinml_announced_"

TIME_TO_START = timedelta(minutes=10)
"""An event so young may still start a run."""

GIVEN_UP = timedelta(days=1)
"""What an older event was about, a nightly run has done."""

logger = logging.getLogger(__name__)


def remember(event: str, resource: dict[str, str], payload: dict[str, Any], starts: str) -> None:
    """Keep an event on the server until it is known to have started a run.

    Args:
        event: Its name.
        resource: What it is about.
        payload: Has the `selection` of the run that it starts.
        starts: The deployment that it starts.
    """
    about = {key: payload.get(key) for key in ("selection", "set_options")}
    text = json.dumps([event, about], sort_keys=True)
    value = {
        "event": event,
        "resource": resource,
        "payload": payload,
        "starts": starts,
        "occurred": datetime.now(UTC).isoformat(),
    }
    name = f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    try:
        Variable.set(name, value, overwrite=True)
    # No run fails for it; the nightly run does what the event was about.
    except Exception as err:
        logger.warning("%s is not remembered: %s", event, err)


def emit_lost_events() -> list[str]:
    """Emit the events again that should have started a run and did not.

    Only in runs of deployments, which come back each hour.

    Returns:
        Their names.
    """
    if not deployment.id:
        return []
    found = []
    try:
        with get_client(sync_client=True) as client:
            for known in _remembered(client):
                if _is_lost(client, known, now=datetime.now(UTC)):
                    logger.warning("%s started no run: emitted again", known["event"])
                    emit_event(known["event"], resource=known["resource"], payload=known["payload"])
                    found.append(known["event"])
    except Exception as err:
        logger.warning("whether events were lost is unknown: %s", err)
    return found


def _remembered(client: SyncPrefectClient) -> list[dict[str, Any]]:
    body = {"variables": {"name": {"like_": PREFIX}}, "limit": 200}
    found = client.request("POST", "/variables/filter", json=body).json()
    return [one["value"] for one in found if one["name"].startswith(PREFIX)]


def _is_lost(client: SyncPrefectClient, known: dict[str, Any], *, now: datetime) -> bool:
    occurred = datetime.fromisoformat(known["occurred"])
    if not TIME_TO_START < now - occurred < GIVEN_UP:
        return False
    try:
        started = client.read_deployment_by_name(known["starts"])
    except ObjectNotFound:
        return False
    since = FlowRunFilterExpectedStartTime(after_=DateTime.fromisoformat(known["occurred"]))
    runs = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[started.id])),
        flow_run_filter=FlowRunFilter(expected_start_time=since),
    )
    wanted = known["payload"]["selection"]
    return not any(run.parameters.get("selection") == wanted for run in runs)
