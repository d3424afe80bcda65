"""Keys of Prefect artifacts, stable so that Prefect shows the history of each, and their pages."""

from __future__ import annotations

import re


def key_of(*parts: str) -> str:
    """The parts as one key of lower-case letters, digits and dashes, as Prefect requires."""
    plain = (re.sub(r"[^a-z0-9]+", "-", part.casefold()).strip("-") for part in parts)
    return "-".join(part for part in plain if part)


def artifact_page(ui: str, key: str) -> str:
    """The address of an artifact's page, which has its history; Prefect makes none itself."""
    return f"{ui.rstrip('/')}/artifacts/key/{key}"
