"""Fixtures of the tests of kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from coinml.encoder import kernel_choice
from tests.unit.encoder.test_encoder_families import FAMILIES


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the kept figures, empty."""
    monkeypatch.setenv("COINML_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "data" / "cache" / "kernels"


@pytest.fixture
def all_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure all kernels although a tiny model is not worth it, however busy the machine is."""
    monkeypatch.setattr(kernel_choice, "_SHORT_S", 0.0)
    monkeypatch.setattr(kernel_choice, "_PROBE_S", 60.0)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A family of encoders."""
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of the family."""
    return FAMILIES[family][0](tmp_path_factory.mktemp(family))
