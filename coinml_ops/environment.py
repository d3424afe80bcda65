"""The process environment and logging, set before Prefect, MLflow or transformers is imported."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from coinml.runtime.escaping import printable
from coinml.runtime.proxies import keep_loopback_direct

_DEFAULTS = {
    # MLflow accepts no other value of DO_NOT_TRACK.
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "ALEMBIC_LOG_LEVEL": "WARNING",
    # The terminal shows a summary; the log file and the API have every record.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "coinml,tasks",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # In seconds. `coinml deploy`'s automation marks a run without heartbeats as crashed.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    # Tokenizers warn when a process is forked after their threads have started.
    "TOKENIZERS_PARALLELISM": "false",
}

FROM_STACK: set[str] = set()
"""Names of the variables that `use_stack` set, not the user."""


def prepare_environment() -> None:
    """Disable telemetry and third-party output, unless the user has set otherwise.

    Requests to this machine go around a proxy that the environment names.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    keep_loopback_direct()


def use_stack() -> None:
    """Use the servers of this home's `coinml up`, unless the user has named others."""
    from coinml.runtime.home import home
    from coinml_ops.stack import record

    stack = record.read(home())
    if stack is None:
        return
    found = {}
    if stack.up():
        found = {"PREFECT_API_URL": stack.prefect_api, "MLFLOW_TRACKING_URI": stack.mlflow_url}
        # An address of this machine too, but not always loopback.
        keep_loopback_direct(stack.host)
    if stack.postgres:
        from coinml_ops.stack.postgres import Databases

        # Also while the stack is down: a new ledger in a file would be empty.
        found["COINML_LEDGER_URL"] = Databases(stack.postgres).ledger
    elif stack.up() and stack.ledger_url:
        found["COINML_LEDGER_URL"] = stack.ledger_url
    for name, value in found.items():
        if not os.environ.get(name):
            os.environ[name] = value
            FROM_STACK.add(name)
    send_password_home_only()


def send_password_home_only() -> None:
    """Have Prefect's and MLflow's clients send this home's password to its own servers alone.

    Where the environment names another server, the home's password is removed from it; a password
    of that server stays.
    """
    from coinml.runtime.home import home
    from coinml_ops.access import password as access
    from coinml_ops.stack import record

    stack = record.read(home())
    password = access.read_password(home() / "data")
    if stack is None or not password:
        return
    variables = access.client_variables(password)
    servers = (
        ("PREFECT_API_URL", stack.prefect_api, (access.PREFECT_CLIENT,)),
        ("MLFLOW_TRACKING_URI", stack.mlflow_url, (access.MLFLOW_USER, access.MLFLOW_PASSWORD)),
    )
    for address, own, names in servers:
        named = os.environ.get(address, "")
        if same_place(named, own):
            os.environ.update({name: variables[name] for name in names})
        elif any(os.environ.get(name) == variables[name] for name in names[-1:]):
            for name in names:
                os.environ.pop(name, None)


def same_place(url: str, own: str) -> bool:
    """Whether a URL is of the server at another URL, by any of this machine's loopback names."""
    from coinml.runtime.addresses import parts_of

    def place(text: str) -> tuple[str | None, int | None]:
        parts = parts_of(text)
        loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
        return ("127.0.0.1" if loopback else parts.hostname, parts.port)

    try:
        return place(url) == place(own)
    except ValueError:
        return False


class _Formatter(logging.Formatter):
    """Lines that a terminal may show: records quote names and messages from outside."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without control characters but its line breaks."""
        return printable(super().format(record), keep="\n\t")


def log_to(folder: Path) -> Path:
    """Send every log record of this process to `coinml.log` in a folder, none to the terminal.

    Returns:
        The log's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "coinml.log"
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(
        _Formatter("%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # They log a line for every API call.
    for chatty in ("httpx", "alembic", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return path
