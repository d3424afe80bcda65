"""What was found of one subject."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one subject.

    Attributes:
        subject: What was looked at.
        state: "failed" keeps coinml from working, "warning" takes something away.
        text: What was found.
        remedy: What to do, or "".
    """

    subject: str
    state: Literal["ok", "warning", "failed"]
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def installed(distribution: str) -> str | None:
    """The version of a package that is installed here."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
