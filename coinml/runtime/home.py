"""Where all state lies, unless COINML_HOME says otherwise."""

from __future__ import annotations

import os
from pathlib import Path


def default_home() -> Path:
    """The checkout that this package runs from, else the working folder."""
    repository = Path(__file__).resolve().parents[2]
    return repository if (repository / "pyproject.toml").is_file() else Path.cwd()


def home() -> Path:
    """The folder below which all state lies, for what must not wait for `Settings`."""
    named = os.environ.get("COINML_HOME")
    return Path(named).expanduser().resolve() if named else default_home()
