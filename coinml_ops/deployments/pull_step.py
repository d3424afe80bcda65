"""Where a worker finds the flows: the pull step of every deployment (`prefect.yaml`)."""

from __future__ import annotations

import os
from pathlib import Path

import coinml
from coinml.errors import LocalError
from coinml_ops.environment import prepare_environment

CODE = Path(coinml.__file__).resolve().parents[1]
"""The checkout, or the site-packages that coinml is installed in: `flows/` is below it."""


def find_code() -> dict[str, str]:
    """Prepare the process of a flow run that a worker has just started.

    It runs in an empty folder of its own, which Prefect deletes afterwards. The entrypoints are
    relative to the folder that is answered here; the state is below COINML_HOME as ever, and the
    two may lie apart. What is set in the environment here holds in the run.

    Returns:
        The folder to run in, as Prefect wants it from a pull step.

    Raises:
        LocalError: Nothing says where the state is.
    """
    if not os.environ.get("COINML_HOME"):
        if not (CODE / "pyproject.toml").is_file():
            raise LocalError("this worker has no COINML_HOME: set it where the worker is started")
        os.environ["COINML_HOME"] = str(CODE)
    # Unlike at a terminal, a run's log lines are what a worker has to show.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    prepare_environment()
    return {"directory": str(CODE)}
