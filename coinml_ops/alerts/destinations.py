"""The kinds of addresses that alerts can be sent to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinml.errors import InvalidInputError
from coinml.runtime.addresses import parts_of

if TYPE_CHECKING:
    from prefect.blocks.core import Block
    from prefect.events.actions import ActionTypes

WEBHOOK, SLACK, MAIL = "webhook", "slack", "mail"
SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
EXAMPLES = {
    WEBHOOK: "https://example.com/hook",
    SLACK: "https://hooks.slack.com/services/T…/B…/…",
    MAIL: "mailtos://USER:PASSWORD@example.com?smtp=smtp.example.com&to=me@example.com",
}

TITLE, TEXT = "{{ event.payload.title }}", "{{ event.payload.text }}"
BODY = (
    '{"event": {{ event.event | tojson }}, "title": {{ event.payload.title | tojson }}, '
    '"text": {{ event.payload.text | tojson }}, "details": {{ event.payload | tojson }}}'
)
"""What a webhook is sent. Chat programs with webhooks of Slack's form read `text`."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An address that alerts are sent to.

    Attributes:
        kind: "webhook", "slack" or "mail".
        shown: The address without what is secret in it: user, password, path and query.
    """

    kind: str
    shown: str


def destination_of(url: str) -> Destination:
    """What kind of address a URL is; nothing is sent.

    Raises:
        InvalidInputError: None of the known kinds, or incomplete. The URL is not shown, since
            nearly all of it may be secret.
    """
    try:
        parts = parts_of(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not url.isprintable() or " " in url:
        raise InvalidInputError(f"not an address for alerts (it is not shown); {_allowed()}")
    scheme = parts.scheme.lower()
    shown = f"{scheme}://{host}{f':{port}' if port else ''}/…"
    if scheme in ("http", "https"):
        kind = SLACK if host in SLACK_HOSTS else WEBHOOK
    elif scheme in ("mailto", "mailtos"):
        kind = MAIL
    else:
        raise InvalidInputError(f"{shown}: {scheme} is no kind of address; {_allowed()}")
    if kind != WEBHOOK and not _is_complete(url):
        raise InvalidInputError(f"{shown}: incomplete; such an address looks like {EXAMPLES[kind]}")
    return Destination(kind, shown)


def block_for(kind: str, url: str) -> Block:
    """Prefect's block that sends to an address; it keeps the URL encrypted and shows none of it."""
    from prefect.blocks.notifications import SlackWebhook
    from prefect.blocks.webhook import Webhook
    from prefect.types import SecretDict
    from pydantic import SecretStr

    if kind == WEBHOOK:
        headers = SecretDict({"Content-Type": "application/json"})
        return Webhook(url=SecretStr(url), headers=headers)
    # This block hands every URL that is not of Slack's GovCloud to Apprise, which sends mail, too.
    # Prefect has no block for SMTP of its own.
    return SlackWebhook(url=SecretStr(url))


def action_for(kind: str, block_id: Any) -> ActionTypes:
    """An automation's action that sends its event by a block."""
    from prefect.events.actions import CallWebhook, SendNotification

    if kind == WEBHOOK:
        return CallWebhook(block_document_id=block_id, payload=BODY)
    return SendNotification(block_document_id=block_id, subject=TITLE, body=TEXT)


def _is_complete(url: str) -> bool:
    import logging

    from apprise import Apprise

    # It logs what it does not understand, with the URL.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    return Apprise.instantiate(url, suppress_exceptions=True) is not None


def _allowed() -> str:
    return "allowed are " + ", ".join(EXAMPLES.values())
