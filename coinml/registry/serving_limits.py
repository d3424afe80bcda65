"""What a client of a served model may ask for: which files, and how much at once."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from coinml.errors import InvalidInputError, LocalError

_WORKERS = ("celery", "pyspark", "ray", "rq")
"""Modules of programs whose main thread works for others."""

_own_command: ContextVar[bool] = ContextVar("coinml_own_command", default=False)


class RefusedRequestError(InvalidInputError, MlflowException):
    """A request that is not answered at all.

    MLflow's server answers its text. To any other exception it adds a stack trace, which names
    folders of the server.
    """

    def __init__(self, message: str, error_code: int = BAD_REQUEST) -> None:
        MlflowException.__init__(self, message, error_code=error_code)


class ServingLimits(BaseSettings):
    """Limits of a request; the variable is `COINML_SERVE_` and the name in capitals.

    Attributes:
        root: The only folder from which files are read; None: a server reads no file.
        max_mb: Largest video sent as base64, in megabytes.
        max_total_mb: Most megabytes of base64 videos in a request.
        max_rows: Most videos in a request.
        max_s: Seconds after which videos that are not answered get an error; MLflow's server ends
            a request after 60 (`MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT`).
        parallel: Most requests at a time; others wait up to `max_s`.
    """

    model_config = SettingsConfigDict(
        env_prefix="COINML_SERVE_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    root: Path | None = None
    max_mb: float = Field(default=100, gt=0, allow_inf_nan=False)
    max_total_mb: float = Field(default=400, gt=0, allow_inf_nan=False)
    max_rows: int = Field(default=64, ge=1)
    max_s: float = Field(default=50, gt=0, allow_inf_nan=False)
    parallel: int = Field(default=4, ge=1)

    @field_validator("root", mode="before")
    @classmethod
    def _blank_is_none(cls, value: Any) -> Any:
        return None if isinstance(value, str) and not value.strip() else value


UNLIMITED = ServingLimits.model_construct(
    root=Path("/"),
    max_mb=math.inf,
    max_total_mb=math.inf,
    max_rows=sys.maxsize,
    max_s=math.inf,
    parallel=sys.maxsize,
)
"""For the user of this process, who may read any file."""


def serving_limits() -> ServingLimits:
    """The limits of a server's requests, by the environment.

    Raises:
        LocalError: A variable has a value that is not allowed.
    """
    try:
        return ServingLimits()
    except ValidationError as err:
        first = err.errors()[0]
        variable = f"COINML_SERVE_{first['loc'][0]}".upper()
        raise LocalError(f"{variable} {first['input']!r}: {first['msg']}") from err


@contextmanager
def own_command() -> Iterator[None]:
    """Within the block, this process reads any file and has no limits: its user is its client."""
    token = _own_command.set(True)
    try:
        yield
    finally:
        _own_command.reset(token)


def request_limits() -> ServingLimits:
    """The limits of the request that this thread answers: `UNLIMITED` for the process's own user.

    Raises:
        LocalError: A variable has a value that is not allowed.
    """
    return UNLIMITED if _serves_nobody() else serving_limits()


def in_mlflow_server() -> bool:
    """Whether MLflow's scoring server runs in this process."""
    return os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true"


def _serves_nobody() -> bool:
    """Whether the caller is the user of this process, who needs no permission and no limits.

    So it is in an `own_command` block, and in the main thread of a program that is no server: no
    event loop runs, no socket listens, and no framework for workers is loaded. Setting
    `COINML_SERVE_ROOT`, also to an empty text, limits such a program like a server.
    """
    if _own_command.get():
        return True
    return (
        f"{ServingLimits.model_config['env_prefix']}ROOT" not in os.environ
        and threading.current_thread() is threading.main_thread()
        and not _in_event_loop()
        and not any(name in sys.modules for name in _WORKERS)
        and not _listens()
    )


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _listens() -> bool:
    """Whether a socket of this process takes connections; also where that is not known."""
    try:
        descriptors = [int(path.name) for path in Path("/dev/fd").iterdir()]
    except OSError:
        return True
    for descriptor in descriptors:
        try:
            with socket.socket(fileno=os.dup(descriptor)) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    return True
        except OSError:
            # Not a socket, or closed by now.
            continue
    return False


class RequestBytes:
    """Counts the base64 videos of a request against its limits, before they are decoded."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._left_mb = limits.max_total_mb

    def decode(self, text: str) -> bytes:
        """The content of a base64 video.

        Raises:
            InvalidInputError: It is not base64 or too large, alone or with those before it.
        """
        # Four base64 characters are three bytes.
        size_mb = (len(text) * 3 // 4 - 2) / 1e6
        if size_mb > self._limits.max_mb:
            raise InvalidInputError(
                f"'video_base64' has some {len(text) * 3 / 4e6:.1f} MB, and at most "
                f"{self._limits.max_mb:g} MB are taken (COINML_SERVE_MAX_MB)"
            )
        if size_mb > self._left_mb:
            raise InvalidInputError(
                f"'video_base64': the request has more than {self._limits.max_total_mb:g} MB of "
                "videos (COINML_SERVE_MAX_TOTAL_MB)"
            )
        self._left_mb -= max(size_mb, 0)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as err:
            raise InvalidInputError(f"'video_base64' is not base64: {err}") from err


def allowed_file(named: str, limits: ServingLimits) -> Path:
    """The file that a row names, with links resolved, if it may be read.

    Raises:
        InvalidInputError: It may not be read, or there is no such file.
    """
    if limits.root is None:
        raise InvalidInputError(
            f"{named}: a served model reads no files because COINML_SERVE_ROOT is not set; "
            "send the video as 'video_base64'"
        )
    try:
        # Resolve links first, so that the file that is checked is the file that is read.
        path = Path(named).resolve()
        below = path.is_relative_to(limits.root.resolve())
        # Outside the root, an answer would say whether there is a file.
        there = below and path.is_file()
    except OSError as err:
        raise InvalidInputError(f"{named}: is no path to a file: {err.strerror}") from err
    except (ValueError, RuntimeError) as err:
        # A null character; a loop of links.
        raise InvalidInputError(f"{named!r}: is no path to a file") from err
    if not below:
        raise InvalidInputError(f"{named}: is not below COINML_SERVE_ROOT")
    if not there:
        raise InvalidInputError(f"{named}: no such file")
    return path
