"""Deployments on a server: schedules, and the chain of events from a collection to the gate."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coinml.ledger import Ledger
from coinml.registry.versions import list_versions
from coinml.tracking.mlflow_store import MlflowStore
from tests.helpers.prefect_stack import PrefectStack, is_planned, prefect_stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(2000)]

CHAIN = ("collect/hourly", "embed/on-new", "train/on-growth")
SCHEDULES = {
    "collect/hourly": ("hourly", "7 * * * *"),
    "train/on-growth": ("weekly", "30 5 * * 0"),
    "reprocess/nightly": ("nightly", "30 2 * * *"),
    "reprobe/monthly": ("monthly", "0 4 1 * *"),
    "audit/monthly": ("monthly", "0 6 2 * *"),
    "score/on-new": ("hourly", "37 * * * *"),
    "retention/daily": ("daily", "40 3 * * *"),
}
LONG_S = 600
"""On an idle machine, no step takes a tenth of it."""
FIRST, SECOND = 60, 90
"""Videos after the first collection, and after the second."""
ENOUGH = 45
"""`min_new`: the first collection brings as many new videos, the second fewer."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectStack]:
    with prefect_stack(tmp_path_factory.mktemp("deployments") / "home") as stack:
        for _ in range(2):
            applied = json.loads(stack.coinml("deploy", "--json").stdout)["applied"]
        assert not any(one["made"] for one in applied)
        # One worker that only collects, and one for the rest.
        stack.start_worker("collector", "network")
        stack.start_worker("embedder", "gpu")
        yield stack


def test_the_schedules_plan_runs(stack: PrefectStack) -> None:
    """Every schedule exists with its cron, and the server has scheduled runs."""
    runs: list[dict[str, Any]] = []
    others = (
        "audit/monthly",
        "score/on-new",
        "retention/daily",
        "pretrain/by-hand",
        "pipeline/mini",
        "pipeline/coin",
    )
    for name in (*CHAIN, "reprocess/nightly", "reprobe/monthly", *others):
        schedules = stack.deployment(name)["schedules"]
        found = [(one["slug"], one["schedule"]["cron"], one["active"]) for one in schedules]
        assert found == ([(*SCHEDULES[name], True)] if name in SCHEDULES else [])

    def planned() -> set[str]:
        runs[:] = stack.ask("flow_runs/filter", {"limit": 200})
        return {run["deployment_id"] for run in runs if is_planned(run)}

    wanted = {stack.deployment(name)["id"] for name in SCHEDULES}
    wait_for(lambda: planned() == wanted, LONG_S, "the scheduler to plan runs")
    weekly = stack.deployment("train/on-growth")["id"]
    assert {run["parameters"]["min_new"] for run in runs if run["deployment_id"] == weekly} == {1}


def ended(stack: PrefectStack, deployment: str, number: int) -> dict[str, Any]:
    """A deployment's n-th run, once it has completed."""
    wait_for(
        lambda: len(stack.runs_of(deployment)) >= number, LONG_S, f"run {number} of {deployment}"
    )
    run = stack.runs_of(deployment)[number - 1]
    over = stack.await_state(
        run["id"], "COMPLETED", "FAILED", "CRASHED", "CANCELLED", within_s=LONG_S
    )
    assert over["state"]["type"] == "COMPLETED", over["state"]
    return over


def test_new_videos_are_embedded_and_trained_on_by_events(stack: PrefectStack) -> None:
    stack.change(
        "train/on-growth",
        parameters={
            **stack.deployment("train/on-growth")["parameters"],
            "min_new": ENOUGH,
        },
    )
    selection = {"dataset": "mini", "limit": FIRST}
    stack.run("collect/hourly", selection=selection)
    collected, embedded, trained = (ended(stack, name, 1) for name in CHAIN)

    (event,) = stack.events("coinml.collected")
    with Ledger(f"sqlite:///{stack.home / 'data' / 'ledger.db'}") as ledger:
        here = ledger.status("mini").downloaded
    assert event["resource"]["prefect.resource.id"] == "coinml.dataset.mini"
    assert event["payload"]["new"] == here > 0
    assert f"{here} of them new" in collected["state"]["message"]
    # Embedding and training use the collection's selection, not the whole dataset.
    for run in (embedded, trained):
        assert run["parameters"]["selection"]["limit"] == FIRST
    (event,) = stack.events("coinml.embedded")
    assert event["payload"]["new"] == here
    assert re.search("champion: version|no version passed the gate", trained["state"]["message"])
    assert trained["parameters"]["ask_gate"] is True
    store = MlflowStore(
        uri=f"sqlite:///{stack.home / 'mlflow.db'}", artifact_root=stack.home / "mlartifacts"
    )
    versions = list_versions(store, "mini-task")
    assert len(versions) == 2
    assert all(row["tags"]["gate"] for row in versions)

    # Without new videos there is no event, and nothing else runs.
    again = stack.await_state(
        stack.run("collect/hourly", selection=selection), "COMPLETED", "FAILED", within_s=LONG_S
    )
    assert "0 of them new" in again["state"]["message"]
    # A run triggered by it would come before those of the next collection, which emits an event.
    stack.run("collect/hourly", selection={"dataset": "mini", "limit": SECOND})
    ended(stack, "collect/hourly", 3)
    ended(stack, "embed/on-new", 2)
    idle = ended(stack, "train/on-growth", 2)
    assert idle["state"]["name"] == "Skipped"
    told = stack.events("coinml.collected")
    assert sorted(event["payload"]["selection"]["limit"] for event in told) == [FIRST, SECOND]
    assert [len(stack.runs_of(name)) for name in CHAIN] == [3, 2, 2]
    # The set has grown by less than `min_new`.
    assert "nothing to train" in idle["state"]["message"]
    assert len(list_versions(store, "mini-task")) == len(versions)


def test_the_pipeline_emits_no_events(stack: PrefectStack) -> None:
    """It embeds and trains in subflows of its own."""
    before = [len(stack.runs_of(name)) for name in CHAIN]
    told = len(stack.events("coinml.collected") + stack.events("coinml.embedded"))
    run = stack.run("pipeline/mini", selection={"dataset": "mini", "limit": 120})
    over = stack.await_state(run, "COMPLETED", "FAILED", "CRASHED", within_s=LONG_S)
    assert over["state"]["type"] == "COMPLETED", over["state"]
    inner = [one for one in stack.flow_runs() if one["parent_task_run_id"]]
    assert {"collect", "embed", "train", "promote"} <= {one["name"].split()[0] for one in inner}
    assert all("coinml" in one["tags"] for one in inner)
    assert len(stack.events("coinml.collected") + stack.events("coinml.embedded")) == told
    assert [len(stack.runs_of(name)) for name in CHAIN] == before


def test_a_concurrent_run_waits_or_is_skipped(stack: PrefectStack) -> None:
    """As each deployment's collision strategy says; no slot stays taken."""
    selection = {"dataset": "mini", "limit": FIRST}
    hourly = [stack.run("collect/hourly", selection=selection) for _ in range(2)]
    ends = [
        stack.await_state(run, "COMPLETED", "CANCELLED", "FAILED", within_s=LONG_S)["state_type"]
        for run in hourly
    ]
    assert sorted(ends) == ["CANCELLED", "COMPLETED"]
    wait_for(
        lambda: all(stack.flow_run(run)["state"]["name"] == "Skipped" for run in hourly),
        60,
        "both runs, of which one had nothing to do, to be named so",
    )
    (cancelled,) = [run for run in hourly if stack.flow_run(run)["state"]["type"] == "CANCELLED"]
    said = stack.flow_run(cancelled)["state"]["message"]
    assert said == "The previous run was still in progress."
    in_turn = [stack.run("embed/on-new", selection=selection) for _ in range(2)]
    for run in in_turn:
        stack.await_state(run, "COMPLETED", within_s=LONG_S)
    for name in CHAIN:
        assert stack.slots_taken(name) == 0


def test_no_state_is_outside_the_home(stack: PrefectStack) -> None:
    """Runs start in temporary folders, workers in any folder: all state is in the home."""
    for name in ("collector", "embedder"):
        assert list((stack.home / name).iterdir()) == []
    assert (stack.home / "mlflow.db").is_file()
    assert not Path(stack.home.parent / "mlflow.db").exists()
