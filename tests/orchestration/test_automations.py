"""The automations that mark lost runs as crashed, applied to a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client

from coinml_ops.deployments import apply
from coinml_ops.deployments.automations import SKIPPED, automations
from tasks import outcomes


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    """Of the shared server, which has none of the automations before and after."""
    with get_client(sync_client=True) as client:
        yield client
        for automation in automations():
            for one in client.read_automations_by_name(automation.name):
                client.delete_automation(one.id)


def test_a_skipped_run_has_one_name() -> None:
    assert SKIPPED == outcomes.SKIPPED


def triggers(client: SyncPrefectClient) -> dict[str, tuple[str, str, Any]]:
    """Ids of each automation and of its trigger, as the server has them, and the time it waits."""
    # The client's models leave out the trigger's id.
    names = {automation.name for automation in automations()}
    return {
        one["name"]: (one["id"], one["trigger"]["id"], one["trigger"]["within"])
        for one in client.request("POST", "/automations/filter", json={}).json()
        if one["name"] in names
    }


def test_applying_again_keeps_the_triggers_that_wait_for_runs(client: SyncPrefectClient) -> None:
    apply.apply_automations(client)
    before = triggers(client)
    assert len(before) == len(automations())
    apply.apply_automations(client)
    assert triggers(client) == before

    # What differs is replaced, and a disabled automation stays disabled.
    (first, second, _) = automations()
    first.trigger.within *= 2
    there = {one.name: one.id for one in client.read_automations()}
    client.update_automation(there[first.name], first)
    client.pause_automation(there[second.name])
    apply.apply_automations(client)
    after = triggers(client)
    assert after[first.name][2] == before[first.name][2]
    assert after[second.name] == before[second.name]
    enabled = {one.name: one.enabled for one in client.read_automations()}
    assert (enabled[first.name], enabled[second.name]) == (True, False)
