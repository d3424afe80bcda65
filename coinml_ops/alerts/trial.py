"""Sends a test alert on the way of a real one, and learns what became of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from coinml_ops.alerts.registered import Alert

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

ACTION = "prefect.automation.action."
POLL_S = 0.5


def send_test(
    client: SyncPrefectClient, alerts: Sequence[Alert], *, wait_s: float
) -> dict[int, str]:
    """Emit the event `coinml.test`, and wait until the server has sent it to each address.

    Args:
        client: Of the server.
        alerts: The addresses.
        wait_s: How long to wait, in seconds.

    Returns:
        By the number of each address: "sent", or why it was not.
    """
    from tasks.alerts import TEST

    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": TEST,
        "resource": {"prefect.resource.id": "coinml.alerts"},
        "payload": {"title": "coinml: test", "text": "A test of coinml's alerts."},
    }
    client.request("POST", "/events", json=[event])
    numbers = {f"prefect.automation.{one.automation_id}": one.number for one in alerts}
    told = {one.number: "disabled" for one in alerts if not one.enabled}
    deadline = time.monotonic() + wait_s
    while len(told) < len(alerts) and time.monotonic() < deadline:
        time.sleep(POLL_S)
        for one in _outcomes(client, event["id"]):
            number = numbers.get(one["resource"]["prefect.resource.id"])
            if number is not None:
                told[number] = _outcome(one)
    missing = f"no answer within {wait_s:g} s"
    return {one.number: told.get(one.number, missing) for one in alerts}


def _outcomes(client: SyncPrefectClient, event_id: Any) -> list[dict[str, Any]]:
    """The events by which the server says what its actions on an event have led to."""
    since = (datetime.now(UTC) - timedelta(minutes=10)).isoformat()
    wanted = {"occurred": {"since": since}, "event": {"prefix": [ACTION]}}
    body = {"filter": wanted, "limit": 50}
    found = client.request("POST", "/events/filter", json=body).json()["events"]
    cause = f"prefect.event.{event_id}"
    invocations = {
        one["payload"]["invocation"]
        for one in found
        if cause in {related["prefect.resource.id"] for related in one["related"]}
    }
    return [
        one
        for one in found
        if one["payload"]["invocation"] in invocations and one["event"] != f"{ACTION}triggered"
    ]


def _outcome(event: dict[str, Any]) -> str:
    payload = event["payload"]
    if event["event"] != f"{ACTION}executed":
        log = payload.get("notification_log", "").strip().splitlines()
        return f"{payload['reason']}{f': {log[-1]}' if log else ''}"
    status = payload.get("status_code")
    return "sent" if status is None or status < 300 else f"the address answers HTTP {status}"
