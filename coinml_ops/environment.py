"""What must be in the environment before Prefect, MLflow or transformers are imported."""

from __future__ import annotations

import logging
import os
from pathlib import Path

_DEFAULTS = {
    # MLflow takes DO_NOT_TRACK only when it is exactly `true`.
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "ALEMBIC_LOG_LEVEL": "WARNING",
    # The command shows what matters; the whole story is in the log file and the API.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "coinml",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # The automations of `coinml deploy` take a run that is silent for four of them for dead.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    # Tokenizers and OpenMP complain when a process is forked after they have threads.
    "TOKENIZERS_PARALLELISM": "false",
}

FROM_STACK: set[str] = set()
"""Variables that were not the user's but taken from the stack."""


def prepare_environment() -> None:
    """Switch telemetry off and third parties quiet, unless the user has set otherwise."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


def use_stack() -> None:
    """Have this command use what `coinml up` runs here, unless the user names something else."""
    from coinml.runtime.home import home
    from coinml_ops.stack import record

    stack = record.read(home())
    if stack is None:
        return
    found = {}
    if stack.up():
        found = {"PREFECT_API_URL": stack.prefect_api, "MLFLOW_TRACKING_URI": stack.mlflow_url}
    if stack.postgres:
        from coinml_ops.stack.postgres import Databases

        # Also while it is down: a second ledger, in a file, would know of nothing.
        found["COINML_LEDGER_URL"] = Databases(stack.postgres).ledger
    elif stack.up() and stack.ledger_url:
        found["COINML_LEDGER_URL"] = stack.ledger_url
    for name, value in found.items():
        if not os.environ.get(name):
            os.environ[name] = value
            FROM_STACK.add(name)


def log_to(folder: Path) -> Path:
    """Send every log record of this process to a file; nothing goes to the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "coinml.log"
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # A line for each call of an API would drown the rest.
    for chatty in ("httpx", "alembic", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return path
