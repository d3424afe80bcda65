"""Keys of artifacts in Prefect, which stay the same so that the history of each shows."""

from __future__ import annotations

import re


def key_of(*parts: str) -> str:
    """Parts as one key of lower-case letters, digits and dashes, which is all Prefect takes."""
    plain = (re.sub(r"[^a-z0-9]+", "-", part.casefold()).strip("-") for part in parts)
    return "-".join(part for part in plain if part)
