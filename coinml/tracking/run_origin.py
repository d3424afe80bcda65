"""Who and which code made a run, as tags that MLflow shows."""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import (
    MLFLOW_GIT_COMMIT,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
    MLFLOW_USER,
)

from coinml.runtime.process_identity import user_name

_CHECKOUT = Path(__file__).parents[2]


def origin_tags() -> dict[str, str]:
    """User, command and git commit; the commit only where coinml runs from a checkout."""
    commit = _commit()
    return {
        MLFLOW_USER: user_name(),
        MLFLOW_SOURCE_NAME: _command(),
        MLFLOW_SOURCE_TYPE: "LOCAL",
        **({MLFLOW_GIT_COMMIT: commit} if commit else {}),
    }


def code_version() -> str:
    """The version of the running coinml."""
    return version("coinml")


def _command() -> str:
    """`coinml train`, say; no more of the command line, where secrets may be."""
    program = Path(sys.argv[0])
    is_coinml = program.stem == "coinml" or program.parent.name.startswith("coinml_")
    words = [word for word in sys.argv[1:2] if is_coinml and word.isalpha()]
    return " ".join(["coinml", *words])


@cache
def _commit() -> str | None:
    # An installed coinml may be in an environment inside another project's repository.
    return get_git_commit(str(_CHECKOUT)) if (_CHECKOUT / ".git").exists() else None
