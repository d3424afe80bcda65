"""The threads in which a flow's tasks run."""

from __future__ import annotations

from typing import Any, cast

from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner


def threads(max_workers: int) -> TaskRunner[PrefectFuture[Any]]:
    """A flow's task runner with this number of threads."""
    # Prefect's annotation of `flow` does not accept its own runners.
    return cast("TaskRunner[PrefectFuture[Any]]", ThreadPoolTaskRunner[Any](max_workers))
