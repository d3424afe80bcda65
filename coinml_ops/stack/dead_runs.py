"""Marks flow runs as crashed that ended with this machine's workers, as in a power cut.

Prefect keeps them as Running, and so their deployment's slot, until an automation notices that
they are silent; and that takes minutes.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from coinml_ops.stack import running_processes
from coinml_ops.stack.services import worker_name
from coinml_ops.stack.shutdown import FLOW_RUN, ask, mark_crashed
from coinml_ops.work_pool import POOL, QUEUES

if TYPE_CHECKING:
    from coinml_ops.stack.health import Api

TAKEN = ("PENDING", "RUNNING", "CANCELLING")
"""States of a run that a worker has taken; it has a process, or had one."""

OTHERS_COUNT_FOR = timedelta(days=1)
"""A worker of another machine that was heard within this time may have runs of its own."""

logger = logging.getLogger(__name__)


def crash_dead_runs(queue: str, api: Api) -> list[str]:
    """Mark the runs of a queue as crashed whose process has ended, before its worker starts.

    A server that does not answer is no error: the automations mark the runs later.

    Returns:
        Ids of the runs that were marked.
    """
    body = {
        "flow_runs": {"state": {"type": {"any_": list(TAKEN)}}},
        "work_pools": {"name": {"any_": [POOL]}},
        "work_pool_queues": {"name": {"any_": [queue]}},
    }
    taken = [run["id"] for run in ask(api, "/flow_runs/filter", body) or []]
    if not taken:
        return []
    workers = ask(api, f"/work_pools/{POOL}/workers/filter", {})
    if workers is None or may_be_elsewhere(workers, now=datetime.now(UTC)):
        return []
    dead = without_process(taken)
    for run in dead:
        logger.warning("%s: flow run %s has no process any more: crashed", queue, run)
        mark_crashed(run, api)
    return dead


def may_be_elsewhere(workers: Sequence[Mapping[str, Any]], *, now: datetime) -> bool:
    """Whether another worker than those of this machine's stack may have taken runs.

    Args:
        workers: The pool's, as the server lists them.
        now: The present time.
    """
    own = {worker_name(queue) for queue in QUEUES}
    heard = [one["last_heartbeat_time"] for one in workers if one["name"] not in own]
    return any(time and datetime.fromisoformat(time) > now - OTHERS_COUNT_FOR for time in heard)


def without_process(runs: Collection[str]) -> list[str]:
    """Those of some flow runs that no process of this machine belongs to."""
    import psutil

    living = {
        running_processes.environment(process).get(FLOW_RUN) for process in psutil.process_iter()
    }
    return [run for run in runs if run not in living]
