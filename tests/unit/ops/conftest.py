"""A home for the tests of operations."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinml.runtime.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("COINML_HOME", str(tmp_path))
    return Settings()
