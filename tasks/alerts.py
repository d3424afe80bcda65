"""Alerts: the events that a person is told of (`coinml alerts`), one when a state changes."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from prefect import Flow, State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import emit_event
from prefect.runtime import deployment
from prefect.variables import Variable

from coinml.collection.health import FAILURES
from coinml.monitoring.run_scoring import ScoreReport
from coinml.registry.promotion import GateVerdict
from coinml.runtime.settings import Settings
from coinml.upkeep.disk import forecast_disk
from tasks.changes import (
    BLOCKED,
    DISK_LOW,
    FAILED,
    RECOVERED,
    STALLED,
    changes_of,
    remembered,
    variable_of,
)

CHAMPION, DRIFT = "coinml.champion", "coinml.drift"
ALERTS = (FAILED, BLOCKED, STALLED, DISK_LOW, CHAMPION, DRIFT, RECOVERED)
TEST = "coinml.test"
"""What `coinml alerts test` emits."""

ENDS = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED)

AnyFlow = TypeVar("AnyFlow", bound=Flow[..., Any])

logger = logging.getLogger(__name__)


def announce_champion(verdicts: Iterable[GateVerdict]) -> None:
    """Emit `coinml.champion` for each version that has become the champion."""
    for verdict in verdicts:
        if verdict.promoted:
            _emit(
                CHAMPION,
                f"coinml.model.{verdict.model}",
                verdict.model,
                title=f"{verdict.model}: version {verdict.version} is the champion",
                text=verdict.reason,
                version=verdict.version,
            )


def announce_disk() -> None:
    """Emit `coinml.disk_low` when this machine's disk begins to be too small for the weeks to come.

    `coinml.recovered` follows when it suffices again.
    """
    host = platform.node()

    def troubles() -> dict[str, str]:
        forecast = forecast_disk(Settings())
        return {DISK_LOW: str(forecast)} if forecast.low else {}

    announce_changes(f"coinml.machine.{host}", host, troubles)


def announce_drift(report: ScoreReport) -> None:
    """Emit `coinml.drift` when a window of new videos differs from the training set.

    `coinml.recovered` follows when a later window does not. Before a version's first window is
    full, nothing is known, and nothing told.
    """
    if report.windows:
        troubles = {DRIFT: f"version {report.version}: {report.drift_text}"} if report.drift else {}
        announce_changes(f"coinml.model.{report.model}", report.model, lambda: troubles)


def announcing_failures(some_flow: AnyFlow) -> AnyFlow:
    """A decorator: two failed runs of a deployment in a row are told as `coinml.failed`.

    `coinml.recovered` follows when a run completes. A run that crashed with its process counts,
    too, but Prefect 3.8 mostly calls no hook for it: `coinml_ops.alerts.watch` tells.
    """
    for at in (some_flow.on_failure, some_flow.on_crashed, some_flow.on_completion):
        at(_announce_end)
    return some_flow


def announce_changes(
    resource: str, name: str, find_troubles: Callable[[], Mapping[str, str]]
) -> None:
    """Emit each trouble that is new, and `coinml.recovered` once for those that are over.

    Runs that no deployment has started tell nothing: their server may be one that sends nothing,
    and somebody reads their output.

    Args:
        resource: Id of the thing in trouble, for Prefect's automations.
        name: Its name for people.
        find_troubles: Returns a text for each event that should have been emitted by now. It is
            called only where something can be told, and may fail.
    """
    with _no_fault_of_the_run(name):
        # Of a subflow: its parent's.
        if deployment.id:
            _tell_changes(resource, name, find_troubles())


def _announce_end(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    wanted = flow_run.deployment_id
    if wanted is None:
        return
    with _no_fault_of_the_run(flow_run.name), get_client(sync_client=True) as client:
        name = f"{flow.name}/{client.read_deployment(wanted).name}"
        last = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[wanted])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(ENDS)))
            ),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=FAILURES,
        )
        failed = [one for one in last if one.state_type != StateType.COMPLETED]
        text = f"{FAILURES} runs in a row have failed. {state.message or ''}".strip()
        troubles = {FAILED: text} if len(failed) == FAILURES else {}
        _tell_changes(f"coinml.deployment.{name}", name, troubles)


def _tell_changes(resource: str, name: str, troubles: Mapping[str, str]) -> None:
    variable = variable_of(resource)
    known = cast("dict[str, Any]", Variable.get(variable, default={}))
    told: list[str] = known.get("troubles", [])
    for change in changes_of(name, told, troubles):
        _emit(change.event, resource, name, title=change.title, text=change.text)
    if sorted(troubles) != sorted(told):
        Variable.set(variable, remembered(resource, troubles), overwrite=True)


@contextmanager
def _no_fault_of_the_run(name: str) -> Iterator[None]:
    """A run must not fail because nobody can be told; the next one tells."""
    try:
        yield
    except Exception as err:
        logger.warning("alerts of %s cannot be sent: %s", name, err)


def _emit(event: str, resource: str, name: str, *, title: str, text: str, **more: object) -> None:
    emit_event(
        event,
        resource={"prefect.resource.id": resource, "prefect.resource.name": name},
        payload={"title": title, "text": text, **more},
    )
