"""When a task is retried, and after how long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coinml.errors import TransientError
from coinml.faults.classification import JITTER, POLICY, Fault

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas.objects import State, TaskRun

RETRIES = POLICY[Fault.TRANSIENT].attempts_in_run - 1
RETRY_DELAYS_S = list(POLICY[Fault.TRANSIENT].delays_in_run_s)
RETRY_JITTER = JITTER


def only_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry transient errors only: any other would occur again."""
    return isinstance(state.data, TransientError)
