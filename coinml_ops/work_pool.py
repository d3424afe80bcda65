"""The Prefect work pool that coinml's deployments and workers share."""

POOL = "coinml"
QUEUES: dict[str, int | None] = {"network": None, "gpu": 1}
"""Limit of concurrent runs (None: no limit) by queue of the pool. A stack has one worker each."""

DEFAULT_QUEUE = "default"
"""Prefect makes it with the pool, and it cannot be removed. Nothing of coinml is sent there."""
