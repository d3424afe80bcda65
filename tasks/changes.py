"""What is told when the troubles of something change; without Prefect, which loads slowly."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from coinml.collection import health

FAILED, DISK_LOW = f"coinml.{health.FAILED}", "coinml.disk_low"
BLOCKED, STALLED = f"coinml.{health.BLOCKED}", f"coinml.{health.STALLED}"
RECOVERED = "coinml.recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An event that tells of a change.

    Attributes:
        event: Its name.
        title: In a few words.
        text: What is wrong, or still is.
    """

    event: str
    title: str
    text: str


def changes_of(name: str, told: Collection[str], troubles: Mapping[str, str]) -> list[Change]:
    """An event for each trouble that is new, and `coinml.recovered` once for those that are over.

    Args:
        name: Of the thing in trouble.
        told: Events of the troubles that were told before.
        troubles: A text for each event that should have been told by now.
    """
    found = [
        Change(event=event, title=f"{name}: {_words(event)}", text=text)
        for event, text in troubles.items()
        if event not in told
    ]
    over = [_words(event) for event in told if event not in troubles]
    if over:
        left = ", ".join(map(_words, troubles)) or "nothing"
        title = f"{name}: no longer {', '.join(over)}"
        found.append(Change(event=RECOVERED, title=title, text=f"Still wrong: {left}."))
    return found


def variable_of(resource: str) -> str:
    """The server's variable that remembers what was told of a resource.

    It is on the server that sends the alerts, so that every run of every machine knows it.
    """
    return f"coinml_alerts_{hashlib.sha256(resource.encode()).hexdigest()[:12]}"


def remembered(resource: str, troubles: Collection[str]) -> dict[str, object]:
    """The value of that variable."""
    return {"resource": resource, "troubles": sorted(troubles)}


def _words(event: str) -> str:
    return event.removeprefix("coinml.").replace("_", " ")
