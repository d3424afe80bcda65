"""The addresses that a Prefect server sends alerts to: a block and an automation for each.

Both are the server's, so that `coinml up` and `coinml deploy`, which apply others, leave them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.addresses import without_user
from coinml_ops.alerts.destinations import action_for, block_for, destination_of

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import Automation, AutomationCore

PREFIX = "coinml-alert-"
"""The blocks' names begin with it and end with the number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An address that alerts are sent to.

    Attributes:
        number: Names it for `coinml alerts remove`.
        kind: "webhook", "slack" or "mail".
        shown: The address without its secrets.
        enabled: Whether its automation is enabled.
        url: All of it.
        block_id: Id of its block.
        automation_id: Id of its automation; None where somebody deleted that.
    """

    number: int
    kind: str
    shown: str
    enabled: bool
    url: str
    block_id: UUID
    automation_id: UUID | None

    def as_dict(self) -> dict[str, Any]:
        """What may be shown, for JSON."""
        return {
            "number": self.number,
            "kind": self.kind,
            "address": self.shown,
            "enabled": self.enabled,
        }


@contextmanager
def alerts_of(api: str | None) -> Iterator[SyncPrefectClient]:
    """A client of the server that keeps the alerts.

    Raises:
        InvalidInputError: No server is named.
        LocalError: It does not answer, or refuses.
    """
    if api is None:
        raise InvalidInputError(
            "alerts are sent by a Prefect server: start it with `coinml up`, or set PREFECT_API_URL"
        )
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        with get_client(sync_client=True) as client:
            yield client
    except (httpx.HTTPError, PrefectHTTPStatusError) as err:
        # A message may quote what was sent, and so the address.
        text = f"the Prefect server at {without_user(api)} refused: {type(err).__name__}"
        raise LocalError(text) from err


def list_alerts(client: SyncPrefectClient) -> list[Alert]:
    """The registered addresses, by number."""
    body = {"include_secrets": True, "block_documents": {"name": {"like_": PREFIX}}}
    documents = client.request("POST", "/block_documents/filter", json=body).json()
    automations = {
        action.block_document_id: one
        for one in client.read_automations()
        for action in one.actions
        if hasattr(action, "block_document_id")
    }
    found = []
    for document in documents:
        number = document["name"].removeprefix(PREFIX)
        if not number.isdecimal():
            continue
        where = destination_of(document["data"]["url"])
        automation: Automation | None = automations.get(UUID(document["id"]))
        found.append(
            Alert(
                number=int(number),
                kind=where.kind,
                shown=where.shown,
                enabled=automation is not None and automation.enabled,
                url=document["data"]["url"],
                block_id=UUID(document["id"]),
                automation_id=None if automation is None else automation.id,
            )
        )
    return sorted(found, key=lambda one: one.number)


def add_alert(client: SyncPrefectClient, url: str) -> tuple[Alert, bool]:
    """Send all alerts to an address from now on.

    Returns:
        It, and whether it is new; an address that is known keeps its number, and its automation is
        enabled and up to date afterwards.

    Raises:
        InvalidInputError: No kind of address, or incomplete.
    """
    where = destination_of(url)
    alerts = list_alerts(client)
    known = next((one for one in alerts if one.url == url), None)
    if known is None:
        taken = {one.number for one in alerts}
        number = next(n for n in range(1, len(alerts) + 2) if n not in taken)
        # It returns a coroutine only under an event loop.
        block_id: Any = block_for(where.kind, url).save(f"{PREFIX}{number}")
    else:
        number, block_id = known.number, known.block_id
    automation = _automation(number, where.kind, block_id)
    if known is not None and known.automation_id is not None:
        client.update_automation(known.automation_id, automation)
    else:
        client.create_automation(automation)
    return next(one for one in list_alerts(client) if one.number == number), known is None


def remove_alert(client: SyncPrefectClient, which: str) -> Alert:
    """Send nothing more to an address.

    Args:
        client: Of the server.
        which: Its number or its URL.

    Raises:
        InvalidInputError: There is none; names the numbers.
    """
    alerts = list_alerts(client)
    for one in alerts:
        if which in (str(one.number), one.url):
            if one.automation_id is not None:
                client.delete_automation(one.automation_id)
            client.request("DELETE", "/block_documents/{id}", path_params={"id": one.block_id})
            return one
    given = f"number {which}" if which.isdecimal() else "this address"
    numbers = ", ".join(str(one.number) for one in alerts) or "none"
    raise InvalidInputError(f"no alerts are sent to {given}; numbers: {numbers}")


def _automation(number: int, kind: str, block_id: UUID) -> AutomationCore:
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    from tasks.alerts import ALERTS, TEST
    from tasks.events import TAG

    return AutomationCore(
        name=f"coinml: alert {number} by {kind}",
        description=f"Sends {', '.join(ALERTS)} (`coinml alerts`).",
        tags=[TAG],
        trigger=EventTrigger(
            expect={*ALERTS, TEST},
            match={"prefect.resource.id": "coinml.*"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[action_for(kind, block_id)],
    )
