"""The pull step of every deployment: tells a worker where the flows are (`prefect.yaml`)."""

from __future__ import annotations

import os

from coinml.errors import LocalError
from coinml_ops.environment import prepare_environment, send_password_home_only
from coinml_ops.prefect_project import PROJECT, import_from_project


def find_code() -> dict[str, str]:
    """Prepare the process of a flow run that a worker has just started.

    The process starts in an empty folder, which Prefect deletes afterwards. Entrypoints are
    relative to the folder that is returned here. The state is below COINML_HOME, which may be
    elsewhere. Environment variables that are set here hold in the run.

    Returns:
        `directory`: the folder to run in, as Prefect expects it from a pull step.

    Raises:
        LocalError: COINML_HOME is not set and there is no checkout to take for it, or another
            package called `flows` or `tasks` is loaded.
    """
    if not os.environ.get("COINML_HOME"):
        if not (PROJECT / "pyproject.toml").is_file():
            raise LocalError("this worker has no COINML_HOME: set it where the worker is started")
        os.environ["COINML_HOME"] = str(PROJECT)
    # A worker's log shows the log lines of its runs.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "INFO")
    prepare_environment()
    send_password_home_only()
    import_from_project()
    return {"directory": str(PROJECT)}
