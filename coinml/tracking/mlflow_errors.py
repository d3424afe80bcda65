"""What MLflow's exceptions mean: a missing object, or a server that does not answer."""

from __future__ import annotations

import re

import requests
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
    ErrorCode,
)

_MISSING = {ErrorCode.Name(code) for code in (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)}
"""MLflow reports an unknown alias and a malformed id as an invalid parameter."""

_LOCKED = ErrorCode.Name(TEMPORARILY_UNAVAILABLE)
_LASTING = re.compile(r"read-?only|unable to open|no such table|disk is full")
"""MLflow calls every operational error of a database temporary; these do not pass by themselves."""

_NO_ANSWER = re.compile("API request to (?!endpoint)")
"""How the message of MLflow's client begins after its last retry; the error code is generic."""


def is_away(err: BaseException) -> bool:
    """Whether an error says that the server does not answer or its database is locked."""
    if isinstance(err, MlflowException):
        locked = err.error_code == _LOCKED and _LASTING.search(str(err)) is None
        return locked or _NO_ANSWER.match(str(err)) is not None
    return isinstance(err, requests.ConnectionError | requests.Timeout)


def is_missing(err: MlflowException) -> bool:
    """Whether an error says that the object does not exist."""
    return err.error_code in _MISSING
