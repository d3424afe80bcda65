"""What a Prefect server must have for the deployments: pool, queues, automations, limits.

All of it is made where it is lacking and left alone where a person has changed it: the ceiling
of a queue, a schedule or a deployment that was paused, an automation that was switched off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.errors import LocalError
from coinml_ops.prefect_project import PROJECT

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.events.schemas.automations import AutomationCore

POOL = "coinml"
QUEUES: dict[str, int | None] = {"network": None, "gpu": 1}
"""Queues of the pool, and how many runs of each may be under way at once."""
TAG = "coinml"
"""Every run of ours bears it; other people's runs on the same server are none of our business."""
SILENT_S = 240.0
"""A run that has not been heard of for so long is dead; it is to be heard of every 30 s.

A machine that is busy loses some of these: on one whose two cores twelve processes wanted, a run
that went on was not heard of for two minutes. Yet shorter than the 300 s for which Prefect lends
a deployment's slot: a slot that is returned twice would let two runs in.
"""
STARTING_S = 600.0
"""A run that a worker took and that has not begun after so long never will."""

_ENDS = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Crashed", "Cancelled")}
_LEAVES = _ENDS | {
    f"prefect.flow-run.{name}"
    for name in ("Cancelling", "Suspended", "Paused", "AwaitingRetry", "Retrying", "TimedOut")
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One thing that the server has now.

    Attributes:
        kind: What it is: work pool, queue, limit, automation, deployment.
        name: Its name.
        made: Whether it was lacking.
        detail: What else there is to say of it.
    """

    kind: str
    name: str
    made: bool
    detail: str = ""


def apply_pool(client: SyncPrefectClient) -> list[Applied]:
    """The work pool for processes on the workers' machines, and its queues."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    applied = []
    try:
        pool = client.read_work_pool(POOL)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=POOL,
                type="process",
                description="Flow runs as processes on the machines where workers are started.",
                base_job_template=ProcessWorker.get_default_base_job_template(),
            )
        )
        applied.append(Applied(kind="work pool", name=POOL, made=True, detail="process"))
    else:
        if pool.type != "process":
            raise LocalError(
                f"the server has a work pool {POOL} of type {pool.type}; ours is of type process"
            )
        applied.append(Applied(kind="work pool", name=POOL, made=False, detail="process"))
    there = {queue.name: queue for queue in client.read_work_queues(work_pool_name=POOL)}
    for name, at_once in QUEUES.items():
        queue = there.get(name) or client.create_work_queue(
            name=name, work_pool_name=POOL, concurrency_limit=at_once
        )
        ceiling = queue.concurrency_limit
        applied.append(
            Applied(
                kind="queue",
                name=name,
                made=name not in there,
                detail="no ceiling" if ceiling is None else f"{ceiling} at once",
            )
        )
    return applied


def apply_automations(client: SyncPrefectClient) -> list[Applied]:
    """What takes note of runs that died together with their worker, which would have said so."""
    applied = []
    for automation in automations():
        there = client.read_automations_by_name(automation.name)
        if there:
            automation.enabled = there[0].enabled
            client.update_automation(there[0].id, automation)
        else:
            client.create_automation(automation)
        applied.append(
            Applied(
                kind="automation",
                name=automation.name,
                made=not there,
                detail="" if automation.enabled else "switched off",
            )
        )
    return applied


def automations() -> list[AutomationCore]:
    """Runs that fell silent, and runs that never began, are marked as crashed.

    That gives their places in the deployment and in the queue back; the next run finds the work
    where they left it.
    """
    from datetime import timedelta

    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

    def crash(name: str, description: str, after: str, expect: set[str], s: float) -> Any:
        return AutomationCore(
            name=name,
            description=description,
            tags=[TAG],
            trigger=EventTrigger(
                after={after},
                expect=expect,
                match={"prefect.resource.id": "prefect.flow-run.*"},
                match_related={
                    "prefect.resource.id": f"prefect.tag.{TAG}",
                    "prefect.resource.role": "tag",
                },
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=s),
            ),
            actions=[
                ChangeFlowRunState(
                    name=None, state=StateType.CRASHED, message=description, force=False
                )
            ],
        )

    heartbeat = "prefect.flow-run.heartbeat"
    return [
        crash(
            "coinml: a run fell silent",
            f"Not heard of for {SILENT_S:g} s: its process is gone, and so is its worker.",
            heartbeat,
            {heartbeat, *_LEAVES},
            SILENT_S,
        ),
        crash(
            "coinml: a run never began",
            f"Taken by a worker {STARTING_S:g} s ago and not begun: the worker is gone.",
            "prefect.flow-run.Pending",
            {
                "prefect.flow-run.Running",
                heartbeat,
                "prefect.flow-run.Scheduled",
                "prefect.flow-run.AwaitingConcurrencySlot",
                *_LEAVES,
            },
            STARTING_S,
        ),
    ]


def read_file() -> dict[str, Any]:
    """The content of `prefect.yaml`."""
    import yaml

    path = PROJECT / "prefect.yaml"
    if not path.is_file():
        raise LocalError(f"no prefect.yaml in {PROJECT}: install coinml again")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def apply_deployments(client: SyncPrefectClient, content: dict[str, Any]) -> list[Applied]:
    """Apply the deployments as `prefect deploy` does; what a person paused stays paused.

    Raises:
        LocalError: Prefect did not take them; says what it said.
    """
    from prefect.exceptions import ObjectNotFound

    applied = []
    for config in content["deployments"]:
        name = full_name(config)
        try:
            there = client.read_deployment_by_name(name)
        except ObjectNotFound:
            there = None
        else:
            _keep_pauses(client, config, there)
        applied.append(
            Applied(kind="deployment", name=name, made=there is None, detail=_says(config))
        )
    _prefect_deploy(content)
    return applied


def full_name(config: dict[str, Any]) -> str:
    """How a deployment is called: by its flow, which bears the name of its file, and by its own."""
    return f"{Path(config['entrypoint'].split(':')[0]).stem}/{config['name']}"


def _keep_pauses(client: SyncPrefectClient, config: dict[str, Any], there: Any) -> None:
    """Write into a deployment's configuration what a person has paused of it on the server."""
    config["paused"] = there.paused
    active = {schedule.slug: schedule.active for schedule in there.schedules}
    for schedule in config.get("schedules", ()):
        schedule["active"] = active.get(schedule["slug"], True)
    for trigger in config.get("triggers", ()):
        for automation in client.read_automations_by_name(trigger["name"]):
            trigger["enabled"] = automation.enabled


def _says(config: dict[str, Any]) -> str:
    """When a deployment runs, in a few words."""
    parts = []
    for schedule in config.get("schedules", ()):
        paused = "" if schedule.get("active", True) else " (paused)"
        parts.append(f"{schedule['slug']} at {schedule['cron']} {schedule['timezone']}{paused}")
    for trigger in config.get("triggers", ()):
        off = "" if trigger.get("enabled", True) else " (switched off)"
        parts.append(f"on {', '.join(trigger['expect'])}{off}")
    says = "; ".join(parts) or "by hand"
    return f"{says}; paused" if config.get("paused") else says


def _prefect_deploy(content: dict[str, Any]) -> None:
    import yaml

    with tempfile.TemporaryDirectory(prefix="coinml-deploy-") as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        run = subprocess.run(
            [
                *(sys.executable, "-m", "prefect", "--no-prompt"),
                *("deploy", "--all", "--prefect-file", str(file)),
            ],
            cwd=PROJECT,
            env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    if run.returncode != 0:
        said = (run.stdout + run.stderr).strip()
        raise LocalError(f"prefect deploy failed:\n{said[-4000:]}")
