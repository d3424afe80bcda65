"""The result of one check."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: What was checked.
        state: "failed": coinml does not work; "warning": something is limited.
        text: The observation.
        remedy: What to do, or "".
    """

    subject: str
    state: Literal["ok", "warning", "failed"]
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


def installed(distribution: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
