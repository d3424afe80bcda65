"""What the tests of registered models share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def reads_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of these tests name files to a loaded model; as every program, they opt in."""
    monkeypatch.setenv("COINML_SERVE_ROOT", "/")
