"""Tells of deployments that are not well when none of their runs can, in a thread of the metrics.

Prefect calls no hook of a run that was killed, and where no worker takes the runs, none ends.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from uuid import uuid4

from coinml.runtime.settings import Settings
from coinml_ops.deployments.health import examine_deployments
from coinml_ops.metrics.prefect_metrics import ask
from coinml_ops.stack.health import Api

EVERY_S = 60.0

logger = logging.getLogger(__name__)


def watch_in_a_thread(settings: Settings, api: Api) -> None:
    """Tell of what is wrong with a server's deployments, from now on.

    Args:
        settings: Of the home whose ledger the collections are recorded in.
        api: Of its Prefect server, which sends the alerts.
    """
    watch = DeploymentWatch(settings, api)

    def work() -> None:
        while True:
            time.sleep(EVERY_S)
            try:
                watch.look(now=datetime.now(UTC))
            # A server or ledger that is away must not end the watch.
            except Exception as err:
                logger.warning("deployments are not watched: %s: %s", type(err).__name__, err)

    threading.Thread(target=work, name="deployments", daemon=True).start()


@dataclass(frozen=True, slots=True)
class _Watched:
    """Something with troubles: its name, a text for each event, and whether a look ends them."""

    name: str
    troubles: dict[str, str]
    may_end: bool


class DeploymentWatch:
    """Looks at a server's deployments again and again; arguments as `watch_in_a_thread`."""

    def __init__(self, settings: Settings, api: Api) -> None:
        self._settings = settings
        self._api = api
        self._before: dict[str, set[str]] = {}

    def look(self, *, now: datetime) -> list[str]:
        """Tell what was so at the look before, too, and is not told yet.

        The end of a run tells the same, so that between two looks it has done so.

        Args:
            now: The present time.

        Returns:
            The events that were emitted.

        Raises:
            OSError: The server does not answer, or refuses.
        """
        from tasks.changes import FAILED

        found: dict[str, _Watched] = {}
        for one in examine_deployments(self._settings, partial(ask, self._api), now=now):
            troubles = {f"coinml.{trouble}": text for trouble, text in one.troubles.items()}
            failed = {event: troubles.pop(event) for event in [FAILED] if event in troubles}
            found[f"coinml.deployment.{one.name}"] = _Watched(one.name, failed, may_end=True)
            if one.dataset is not None:
                resource = f"coinml.collection.{one.dataset}"
                known = found[resource].troubles if resource in found else {}
                # Only a run learns that a source answers again, and it tells.
                found[resource] = _Watched(one.dataset, known | troubles, may_end=False)
        emitted = []
        for resource, watched in found.items():
            if self._before.get(resource) == watched.troubles.keys():
                emitted += self._tell(resource, watched)
        self._before = {resource: set(watched.troubles) for resource, watched in found.items()}
        return emitted

    def _tell(self, resource: str, watched: _Watched) -> list[str]:
        from tasks.changes import changes_of, remembered, variable_of

        variable = variable_of(resource)
        body = {"variables": {"name": {"any_": [variable]}}}
        known = ask(self._api, "/variables/filter", body)
        told = known[0]["value"]["troubles"] if known else []
        troubles = watched.troubles
        if not watched.may_end:
            troubles = dict.fromkeys(told, "") | troubles
        changes = changes_of(watched.name, told, troubles)
        if not changes:
            return []
        events = [
            {
                "id": str(uuid4()),
                "occurred": datetime.now(UTC).isoformat(),
                "event": one.event,
                "resource": {
                    "prefect.resource.id": resource,
                    "prefect.resource.name": watched.name,
                },
                "payload": {"title": one.title, "text": one.text},
            }
            for one in changes
        ]
        self._api.post("/events", events)
        value = remembered(resource, troubles)
        if known:
            self._api.post(f"/variables/name/{variable}", {"value": value}, method="PATCH")
        else:
            self._api.post("/variables/", {"name": variable, "value": value})
        return [one.event for one in changes]
