"""What is wrong with the deployments of a server: what doctor, metrics and alerts say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coinml.collection.health import FAILURES, CollectionFacts, read_facts, troubles_of
from coinml.collection.options import CollectOptions
from coinml.collection.sources import asked_sources
from coinml.ledger import Ledger
from coinml.ledger.database import is_current
from coinml.runtime.settings import Settings
from coinml.selection import Selection

Ask = Callable[[str, dict[str, Any]], Any]
"""The answer of Prefect's API to a JSON document at a path."""

ENDS = ("COMPLETED", "FAILED", "CRASHED")
COLLECT = "collect"

TIME_TO_ANSWER = timedelta(hours=1)
"""A run that was to start later than so long ago need not have had an answer yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployedFlow:
    """A deployment on the server.

    Attributes:
        name: `<flow>/<name>`.
        flow: Name of its flow.
        parameters: Of its runs.
        begun: When it was made; None while nothing of it is scheduled.
        planned: Start of the last run that was to start an hour ago or earlier, if there is one.
        failed_runs: Runs that have failed in a row, up to now; `FAILURES` at most.
        failure: Why the last of them failed.
    """

    name: str
    flow: str
    parameters: Mapping[str, Any]
    begun: datetime | None
    planned: datetime | None
    failed_runs: int
    failure: str

    @property
    def selection(self) -> Selection:
        """The videos of its runs."""
        return Selection(**self.parameters.get("selection", {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentHealth:
    """How well a deployment is.

    Attributes:
        name: `<flow>/<name>`.
        dataset: Name of the dataset that it collects; None if it does something else.
        troubles: A sentence for each trouble; empty if it is well.
    """

    name: str
    dataset: str | None
    troubles: dict[str, str]


def examine_deployments(settings: Settings, ask: Ask, *, now: datetime) -> list[DeploymentHealth]:
    """How well each deployment of coinml is.

    Args:
        settings: Of the home whose ledger the collections are recorded in.
        ask: Of the Prefect server.
        now: The present time.

    """
    return [
        DeploymentHealth(
            name=one.name,
            dataset=one.selection.title if one.flow == COLLECT else None,
            troubles=troubles_of(_facts(one, settings, now), now=now),
        )
        for one in _read(ask, now=now)
    ]


def find_troubles(settings: Settings, ask: Ask, *, now: datetime) -> dict[str, dict[str, str]]:
    """A sentence for each trouble of each deployment, by its name; as `examine_deployments`."""
    return {one.name: one.troubles for one in examine_deployments(settings, ask, now=now)}


def _facts(one: DeployedFlow, settings: Settings, now: datetime) -> CollectionFacts:
    selection = one.selection
    # Another version's ledger is not opened, since that migrates it.
    if one.flow != COLLECT or selection.is_folder or not is_current(settings.ledger_url):
        return CollectionFacts(failed_runs=one.failed_runs, failure=one.failure)
    options = CollectOptions(**one.parameters.get("collection", {}))
    with Ledger.of(settings) as ledger:
        return read_facts(
            ledger,
            selection.title,
            asked_sources(options.sources, is_mini=selection.is_mini),
            now=now,
            begun=one.begun,
            planned=one.planned,
            failed_runs=one.failed_runs,
            failure=one.failure,
        )


def _read(ask: Ask, *, now: datetime) -> list[DeployedFlow]:
    found = ask("/deployments/filter", {"deployments": {"tags": {"all_": ["coinml"]}}})
    ids = [one["flow_id"] for one in found]
    flows = ask("/flows/filter", {"flows": {"id": {"any_": ids}}}) if ids else []
    names = {flow["id"]: flow["name"] for flow in flows}
    return [_deployed_flow(one, names[one["flow_id"]], ask, now=now) for one in found]


def _deployed_flow(one: dict[str, Any], flow: str, ask: Ask, *, now: datetime) -> DeployedFlow:
    def last(limit: int, **wanted: Any) -> list[dict[str, Any]]:
        of_it = {"deployments": {"id": {"any_": [one["id"]]}}, "flow_runs": wanted}
        body = {**of_it, "sort": "EXPECTED_START_TIME_DESC", "limit": limit}
        return list(ask("/flow_runs/filter", body))

    ended = last(FAILURES, state={"type": {"any_": list(ENDS)}})
    successes = [number for number, run in enumerate(ended) if run["state_type"] == "COMPLETED"]
    planned = None
    if flow == COLLECT:
        before = (now - TIME_TO_ANSWER).isoformat()
        for run in last(1, expected_start_time={"before_": before}):
            planned = datetime.fromisoformat(run["expected_start_time"])
    is_scheduled = not one["paused"] and any(each["active"] for each in one["schedules"])
    return DeployedFlow(
        name=f"{flow}/{one['name']}",
        flow=flow,
        parameters=one["parameters"],
        begun=datetime.fromisoformat(one["created"]) if is_scheduled else None,
        planned=planned,
        failed_runs=min(successes, default=len(ended)),
        failure=(ended[0]["state"]["message"] or "") if ended else "",
    )
