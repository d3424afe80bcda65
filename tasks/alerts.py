"""Alerts: the events that a person is told of (`coinml alerts`), one when a state changes."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Iterable, Mapping
from typing import Any, cast

from prefect.events import emit_event
from prefect.runtime import deployment
from prefect.variables import Variable

from coinml.registry.promotion import GateVerdict
from coinml.runtime.settings import Settings
from coinml.upkeep.disk import forecast_disk

DISK_LOW, CHAMPION, RECOVERED = "coinml.disk_low", "coinml.champion", "coinml.recovered"
ALERTS = (DISK_LOW, CHAMPION, RECOVERED)
TEST = "coinml.test"
"""What `coinml alerts test` emits."""

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
    forecast = forecast_disk(Settings())
    troubles = {DISK_LOW: str(forecast)} if forecast.low else {}
    announce_changes(f"coinml.machine.{host}", host, troubles)


def announce_changes(resource: str, name: str, troubles: Mapping[str, str]) -> None:
    """Emit each trouble that is new, and `coinml.recovered` once for those that are over.

    What was told is a variable on the server that sends the alerts, so that every run of every
    machine knows it. Runs that no deployment has started tell nothing: their server may be one
    that sends nothing, and somebody reads their output.

    Args:
        resource: Id of the thing in trouble, for Prefect's automations.
        name: Its name for people.
        troubles: A text for each event that should have been emitted by now.
    """
    variable = f"coinml_alerts_{hashlib.sha256(resource.encode()).hexdigest()[:12]}"
    try:
        # Of a subflow: its parent's.
        if not deployment.id:
            return
        known = cast("dict[str, Any]", Variable.get(variable, default={}))
        told: list[str] = known.get("troubles", [])
        for event in troubles.keys() - set(told):
            what = _words(event)
            _emit(event, resource, name, title=f"{name}: {what}", text=troubles[event])
        over = [_words(event) for event in told if event not in troubles]
        if over:
            left = ", ".join(_words(event) for event in troubles) or "nothing"
            _emit(
                RECOVERED,
                resource,
                name,
                title=f"{name}: no longer {', '.join(over)}",
                text=f"Still wrong: {left}.",
            )
        if sorted(troubles) != sorted(told):
            value = {"resource": resource, "troubles": sorted(troubles)}
            Variable.set(variable, value, overwrite=True)
    # The run has done its work; it must not fail because nobody can be told. The next one tells.
    except Exception as err:
        logger.warning("alerts of %s cannot be sent: %s", name, err)


def _words(event: str) -> str:
    return event.removeprefix("coinml.").replace("_", " ")


def _emit(event: str, resource: str, name: str, *, title: str, text: str, **more: object) -> None:
    emit_event(
        event,
        resource={"prefect.resource.id": resource, "prefect.resource.name": name},
        payload={"title": title, "text": text, **more},
    )
