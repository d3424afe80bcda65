"""MLflow's app behind the password: `mlflow server --app-name coinml` (an entry point).

MLflow's own `basic-auth` keeps users and permissions in a second database, with an administrator
whose password it stores there; one owner needs none of it.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from coinml_ops.access.gate import OwnPagesOnly, PasswordOnly, SignIn, remember_in_mlflow
from coinml_ops.access.password import VARIABLE

if TYPE_CHECKING:
    from starlette.types import ASGIApp

OPEN_PATHS = ("/health",)


def create_app() -> ASGIApp:
    """MLflow's app; it needs the variable COINML_SERVER_PASSWORD."""
    password = os.environ.get(VARIABLE, "")
    if not password:
        sys.exit(f"{VARIABLE} is not set: without a password, every user could use this server")
    from mlflow.server.fastapi_app import app

    guarded = PasswordOnly(OwnPagesOnly(app), password, open_paths=OPEN_PATHS)
    return SignIn(guarded, password, remember=remember_in_mlflow)
