"""What Prefect's server knows: runs that wait or run, workers, and the deployments' last runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from coinml_ops.stack.health import Api
from coinml_ops.work_pool import POOL, QUEUES

WAITING, RUNNING = ("SCHEDULED", "PENDING", "PAUSED"), ("RUNNING", "CANCELLING")
ENDS = {"success": ("COMPLETED",), "failure": ("FAILED", "CRASHED")}


def prefect_metrics(api: Api) -> Iterator[GaugeMetricFamily]:
    """Metrics of a Prefect server to which the deployments were applied.

    Raises:
        OSError: It does not answer, or refuses.
    """
    runs = GaugeMetricFamily(
        "coinml_queue_runs",
        "Flow runs of a work queue that are due and wait, or run",
        labels=["queue", "state"],
    )
    now = datetime.now(UTC).isoformat()
    for queue in QUEUES:
        for state, types in (("waiting", WAITING), ("running", RUNNING)):
            wanted = {
                "state": {"type": {"any_": types}},
                # Later runs of a schedule are planned already.
                "expected_start_time": {"before_": now},
            }
            body = {
                "flow_runs": wanted,
                "work_pools": {"name": {"any_": [POOL]}},
                "work_pool_queues": {"name": {"any_": [queue]}},
            }
            runs.add_metric([queue, state], ask(api, "/flow_runs/count", body))
    workers = GaugeMetricFamily("coinml_worker_online", "Whether a worker reports", labels=["name"])
    for worker in ask(api, f"/work_pools/{POOL}/workers/filter", {}):
        workers.add_metric([worker["name"]], worker["status"] == "ONLINE")
    yield from (runs, workers, *_last_runs(api))


def ask(api: Api, path: str, body: dict[str, Any]) -> Any:
    """The answer of the API to a JSON document at a path."""
    return json.loads(api.post(path, body))


def _last_runs(api: Api) -> Iterator[GaugeMetricFamily]:
    """When a run of each deployment last succeeded and last failed, where one ever did."""
    wanted = {"tags": {"all_": ["coinml"]}}
    deployments = ask(api, "/deployments/filter", {"deployments": wanted})
    ids = [one["flow_id"] for one in deployments]
    flows = ask(api, "/flows/filter", {"flows": {"id": {"any_": ids}}}) if ids else []
    names = {flow["id"]: flow["name"] for flow in flows}
    for end, types in ENDS.items():
        last = GaugeMetricFamily(
            f"coinml_deployment_last_{end}_timestamp_seconds",
            f"End of the last run of a deployment that was a {end}, in seconds since the epoch",
            labels=["deployment"],
        )
        for one in deployments:
            body = {
                "deployments": {"id": {"any_": [one["id"]]}},
                "flow_runs": {"state": {"type": {"any_": types}}},
                "sort": "END_TIME_DESC",
                "limit": 1,
            }
            for run in ask(api, "/flow_runs/filter", body):
                ended = datetime.fromisoformat(run["end_time"] or run["state"]["timestamp"])
                last.add_metric([f"{names[one['flow_id']]}/{one['name']}"], ended.timestamp())
        yield last
