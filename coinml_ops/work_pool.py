"""The Prefect work pool that coinml's deployments and workers share."""

POOL = "coinml"
QUEUES: dict[str, int | None] = {"network": None, "gpu": 1}
"""Queues of the pool, and each one's limit of concurrent runs. A stack has a worker for each."""
