"""The folder of all state: COINML_HOME, or the default."""

from __future__ import annotations

import os
from pathlib import Path


def default_home() -> Path:
    """The checkout that this package runs from, else the working directory."""
    repository = Path(__file__).resolve().parents[2]
    return repository if (repository / "pyproject.toml").is_file() else Path.cwd()


def home() -> Path:
    """The folder of all state, without importing `Settings` (and pydantic)."""
    named = os.environ.get("COINML_HOME")
    return Path(named).expanduser().resolve() if named else default_home()
