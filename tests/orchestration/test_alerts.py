"""The events that alerts are made of: one when a state changes, from runs of deployments."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.flow_engine import run_flow
from sqlalchemy import update

from coinml.collection.options import CollectOptions
from coinml.errors import LocalError
from coinml.ledger import Ledger
from coinml.ledger.schema import sources
from coinml.miniature.host import FlakyHost
from coinml.monitoring.drift import Predicted, find_drift
from coinml.monitoring.run_scoring import ScoreReport
from coinml.monitoring.score_files import Scored
from coinml.registry.promotion import GateVerdict
from coinml.selection import Selection
from flows.collect import collect
from tasks import alerts
from tasks.alerts import (
    announce_champion,
    announce_changes,
    announce_drift,
    announcing_failures,
)

Coin = tuple[Path, list[str]]


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Name and payload of every alert that is emitted; those are still sent to the server."""
    found: list[tuple[str, dict[str, Any]]] = []
    emit = alerts.emit_event

    def record(event: str, *, resource: dict[str, str], payload: dict[str, Any]) -> object:
        assert event in alerts.ALERTS
        assert resource["prefect.resource.id"].startswith("coinml.")
        found.append((event, payload))
        return emit(event, resource=resource, payload=payload)

    monkeypatch.setattr(alerts, "emit_event", record)
    return found


def run_of_deployment(
    some_flow: Any, *, return_type: Literal["result", "state"] = "result", **parameters: Any
) -> Any:
    """Run a flow here as a worker runs a deployment of it."""
    with get_client(sync_client=True) as client:
        made = client.create_deployment(flow_id=client.create_flow(some_flow), name="alerts")
        run = client.create_flow_run_from_deployment(made)
    return run_flow(some_flow, flow_run=run, parameters=parameters, return_type=return_type)


@flow
def judged(troubles: dict[str, str]) -> None:
    """A flow that finds these troubles."""
    announce_changes("coinml.dataset.toy", "toy", lambda: troubles)


@flow
def parent() -> None:
    """A flow whose subflow finds that all is well."""
    judged({})


def test_a_change_is_told_once(emitted: list[Any]) -> None:
    low = {"coinml.disk_low": "2.0 GiB free"}
    for troubles in ({}, low, low, {}, {}, low):
        run_of_deployment(judged, troubles=troubles)
    told = [(event, payload["title"], payload["text"]) for event, payload in emitted]
    assert told == [
        ("coinml.disk_low", "toy: disk low", "2.0 GiB free"),
        ("coinml.recovered", "toy: no longer disk low", "Still wrong: nothing."),
        ("coinml.disk_low", "toy: disk low", "2.0 GiB free"),
    ]
    # A run by hand tells nothing, and does not make others forget to.
    judged({})
    assert len(emitted) == 3
    # A subflow of a deployment's run does.
    run_of_deployment(parent)
    assert emitted[3][0] == "coinml.recovered"


@announcing_failures
@flow(name="moody")
def moody(fail: bool) -> None:
    """A flow that fails if it is told to."""
    if fail:
        raise LocalError("the hub is away")


def test_the_second_failure_in_a_row_is_told_once(emitted: list[Any]) -> None:
    for fail in (True, False, True, True, True, False, False):
        run_of_deployment(moody, fail=fail, return_type="state")
    told = [(event, payload["title"]) for event, payload in emitted]
    assert told == [
        ("coinml.failed", "moody/alerts: failed"),
        ("coinml.recovered", "moody/alerts: no longer failed"),
    ]
    assert emitted[0][1]["text"].startswith("2 runs in a row have failed. ")
    assert "the hub is away" in emitted[0][1]["text"]
    # By hand, somebody reads the error.
    for _ in range(2):
        moody(fail=True, return_state=True)
    assert len(emitted) == 2


def test_collecting_tells_of_a_low_disk(
    home: Path,
    coin: Coin,
    selection: Selection,
    emitted: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A disk cannot be made small here: more is reserved than any has.
    monkeypatch.setattr("coinml.upkeep.disk.RESERVE_BYTES", 2**70)
    with FlakyHost(coin[0] / "videos") as host:
        source = CollectOptions(source=host.source, budget=2)
        for _ in range(2):
            run_of_deployment(collect, selection=selection, collection=source)
        monkeypatch.setattr("coinml.upkeep.disk.RESERVE_BYTES", 0)
        run_of_deployment(collect, selection=selection, collection=source)
    assert [event for event, _ in emitted] == ["coinml.disk_low", "coinml.recovered"]
    assert "GiB free" in emitted[0][1]["text"]


def test_a_disk_that_cannot_be_read_fails_no_run(
    emitted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(_: object) -> None:
        raise OSError("stale file handle")

    # A file system that goes away in the middle of a run cannot be had here.
    monkeypatch.setattr(alerts, "forecast_disk", unreadable)

    @flow
    def telling() -> str:
        alerts.announce_disk()
        return "done"

    assert run_of_deployment(telling) == "done"
    assert emitted == []


def test_a_new_champion_is_told(emitted: list[Any]) -> None:
    @flow
    def promoting() -> None:
        announce_champion(
            GateVerdict(model="toy-task", version=number, promoted=number == 2, reason="better")
            for number in (1, 2)
        )

    promoting()
    ((event, payload),) = emitted
    assert (event, payload["version"]) == ("coinml.champion", 2)
    assert payload["title"] == "toy-task: version 2 is the champion"
    assert payload["text"] == "better"


def _let_it_refuse_since(home: Path, *, days: float) -> None:
    """Rewrite the ledger as if the source had refused for days, and may be asked again now."""
    with Ledger(f"sqlite:///{home / 'data' / 'ledger.db'}") as ledger:
        since = sources.c.blocked_since - days * 86400
        values = {"blocked_since": since, "blocked_until": time.time() - 1}
        ledger.database.write(lambda made: made.execute(update(sources).values(values)).close())


def test_a_source_that_refuses_for_more_than_a_day_fails_the_run(
    home: Path, coin: Coin, selection: Selection, emitted: list[Any]
) -> None:
    plan = {"source": [{"after_requests": 0, "answer": "429", "retry_after_s": 600, "times": 99}]}

    def collect_from(host: FlakyHost, some_flow: Any = collect) -> Any:
        options = CollectOptions(source=host.source, budget=1, max_wait_s=0)
        parameters = {"selection": selection, "collection": options}
        return run_of_deployment(some_flow, return_type="state", **parameters)

    with FlakyHost(coin[0] / "videos", plan) as host:
        # Sources have bad days.
        assert collect_from(host).is_completed()
        _let_it_refuse_since(home, days=2)
        refused = collect_from(host)
        assert refused.is_failed()
        assert "the source has refused everyone since" in refused.message
        # By hand, it is said and no failure; and a parent goes on with what is there.
        options = CollectOptions(source=host.source, budget=1, max_wait_s=0)
        assert collect(selection, options).blocked_until is not None
        assert collect_from(host, nightly).is_completed()
        _let_it_refuse_since(home, days=0)
    with FlakyHost(coin[0] / "videos", port=host.port) as host:
        assert collect_from(host).is_completed()
    told = [(event, payload["title"]) for event, payload in emitted]
    assert told == [
        ("coinml.blocked", "toy: blocked"),
        ("coinml.recovered", "toy: no longer blocked"),
    ]


@flow
def nightly(selection: Selection, collection: CollectOptions) -> None:
    """A flow that collects among other things."""
    collect(selection, collection)


def test_drift_is_told_once_and_when_it_is_over(emitted: list[Any]) -> None:
    reference = Predicted(embeddings=None, labels=("a", "b") * 20, scores=np.linspace(0, 1, 40))
    same = find_drift(reference, reference).as_dict()
    other = Predicted(embeddings=None, labels=("b",) * 40, scores=np.linspace(0, 1, 40))
    drifted = find_drift(reference, other).as_dict()
    assert drifted["drift"] == ["class_mix"]

    @flow
    def scoring(found: list[dict[str, Any]]) -> None:
        windows = tuple(
            {**one, "start": 40 * number, "stop": 40 * (number + 1)}
            for number, one in enumerate(found)
        )
        report = ScoreReport(
            model="toy-task",
            version=3,
            source="new",
            scored=Scored(files=0),
            classified=40 * len(found),
            windows=windows,
            pending=0,
            window=40,
        )
        announce_drift(report)

    for found in ([], [same], [same, drifted], [same, drifted], [], [same, drifted, same]):
        run_of_deployment(scoring, found=found)
    told = [(event, payload["title"]) for event, payload in emitted]
    assert told == [
        ("coinml.drift", "toy-task: drift"),
        ("coinml.recovered", "toy-task: no longer drift"),
    ]
    text = emitted[0][1]["text"]
    assert "files 41 to 80) differs from the training set" in text
    assert "class mix p = " in text
