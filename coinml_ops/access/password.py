"""The password of a home's servers, in `data/access.env`, which only its owner may read.

Every user of the machine reaches a port of its loopback interface, and Prefect's and MLflow's APIs
run code as the owner of their processes. The file has the variables of all clients: systemd and
Docker Compose read it, and a shell can.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
from pathlib import Path

from coinml.errors import InvalidInputError
from coinml.runtime.atomic_files import write_whole

USER = "coinml"
VARIABLE = "COINML_SERVER_PASSWORD"
PREFECT_CLIENT = "PREFECT_API_AUTH_STRING"
PREFECT_SERVER = "PREFECT_SERVER_API_AUTH_STRING"
MLFLOW_USER, MLFLOW_PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
_ALLOWED = re.compile(r"[A-Za-z0-9_.~-]{16,}")


def password_file(data_dir: Path) -> Path:
    """The file of a home whose `data` folder is given."""
    return data_dir / "access.env"


def read_password(data_dir: Path) -> str:
    """COINML_SERVER_PASSWORD from the environment or the file; "" if there is none."""
    return os.environ.get(VARIABLE) or stored_password(data_dir)


def stored_password(data_dir: Path) -> str:
    """The password in the file; "" if there is none."""
    try:
        text = password_file(data_dir).read_text()
    except OSError:
        return ""
    found = re.search(rf"^{VARIABLE}='(.*)'$", text, re.MULTILINE)
    return found[1] if found else ""


def ensure_password(data_dir: Path) -> str:
    """The home's password: from the environment, else from the file, else a new random one.

    Afterwards the file has it.

    Raises:
        InvalidInputError: COINML_SERVER_PASSWORD is too short or has other characters.
    """
    from filelock import FileLock

    data_dir.mkdir(parents=True, exist_ok=True)
    # Of two processes that start at the same time, the second takes the password of the first.
    with FileLock(data_dir / "access.env.lock"):
        stored = stored_password(data_dir)
        password = os.environ.get(VARIABLE) or stored or secrets.token_urlsafe(32)
        if not _ALLOWED.fullmatch(password):
            raise InvalidInputError(
                f"{VARIABLE}: at least 16 letters, digits or _ . ~ - (its value is not shown)"
            )
        if password != stored:
            variables = {VARIABLE: password, **client_variables(password)}
            # Between single quotes, shells, systemd and Compose take a value literally.
            lines = "".join(f"{name}='{value}'\n" for name, value in variables.items())
            write_whole(password_file(data_dir), lines, private=True)
    return password


def auth_string(password: str) -> str:
    """User and password as Prefect's settings have them."""
    return f"{USER}:{password}"


def client_variables(password: str) -> dict[str, str]:
    """The variables with which Prefect's and MLflow's clients send the password."""
    if not password:
        return {}
    return {
        PREFECT_CLIENT: auth_string(password),
        MLFLOW_USER: USER,
        MLFLOW_PASSWORD: password,
    }


def authorization(password: str) -> str:
    """The value of a request's header Authorization."""
    return f"Basic {base64.b64encode(auth_string(password).encode()).decode()}"
