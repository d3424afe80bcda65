"""Checks of what `coinml doctor` finds."""

from __future__ import annotations

from coinml_ops.doctor.finding import Finding


def checked(found: Finding) -> tuple[str, str]:
    """State and text of a finding, which must have a remedy unless all is well."""
    assert found.text
    assert found.remedy or found.state == "ok"
    return found.state, found.text
