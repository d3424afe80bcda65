"""Applies the deployments to a stack's Prefect server in a process of its own, while it starts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

from coinml.errors import InvalidInputError, LocalError
from coinml_ops.stack.lifecycle import UP_TIMEOUT_S
from coinml_ops.stack.record import Stack
from coinml_ops.stack.services import services

WRONG_INPUT = 2
"""Exit code of `coinml deploy` for a dataset that it cannot read."""


def start_deploy(
    stack: Stack, coinml: Sequence[str], options: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """Start `coinml deploy`, which waits until the stack's Prefect server answers.

    Args:
        stack: A stack that was started.
        coinml: Command line of `coinml`.
        options: Of `coinml deploy`.
    """
    worker = services(stack)[-1]
    command = [*coinml, "deploy", "--json", "--wait", str(UP_TIMEOUT_S), *options]
    # Its output is short enough for a pipe's buffer, so that it is read only at the end.
    return subprocess.Popen(
        command,
        env=worker.full_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_deploy(deploy: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait until the deployments are applied.

    Returns:
        What was edited on the server, as `coinml deploy --json` lists it.

    Raises:
        InvalidInputError: The dataset cannot be read.
        LocalError: They could not be applied.
    """
    answer, errors = deploy.communicate()
    if deploy.returncode == 0:
        return list(json.loads(answer)["edits"])
    said = errors.strip().rpartition("error: ")[2] or f"exit code {deploy.returncode}"
    error = InvalidInputError if deploy.returncode == WRONG_INPUT else LocalError
    raise error(f"the deployments were not applied: {said}")
