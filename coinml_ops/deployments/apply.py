"""Applies pool, queues, limit, automations and deployments to a Prefect server.

What is missing is created. What a person has changed stays: a queue's concurrency limit, a paused
schedule or deployment, a disabled automation, and what was edited of a deployment (`edits`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.errors import LocalError
from coinml.runtime.addresses import without_user
from coinml_ops.deployments.automations import automations
from coinml_ops.deployments.chosen import flow_of
from coinml_ops.deployments.edits import (
    Edit,
    digests,
    keep_edits,
    of_config,
    of_server,
    read_record,
    slug_of,
    write_record,
)
from coinml_ops.prefect_project import PROJECT
from coinml_ops.work_pool import POOL, QUEUES

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """One object on the server.

    Attributes:
        kind: work pool, queue, limit, automation or deployment.
        name: Its name.
        made: Whether it was created now.
        detail: Its limit, schedule or state.
    """

    kind: str
    name: str
    made: bool
    detail: str = ""


def apply_all(
    content: dict[str, Any],
    api: str,
    *,
    before: dict[str, Any] | None = None,
    reset: bool = False,
    wait_s: float = 0,
) -> tuple[list[Applied], list[Edit]]:
    """Apply everything to the server that PREFECT_API_URL names.

    Args:
        content: `prefect.yaml`, with the parameters of this machine.
        api: The server's address.
        before: The same with the choices before this command, if it has changed some.
        reset: Overwrite what was edited on the server.
        wait_s: Seconds to wait for the server to answer.

    Returns:
        What is on the server, and what was edited there.

    Raises:
        LocalError: The server does not answer, or refuses.
    """
    # Slow to import: done while a server may still be starting.
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    from tasks.limits import BATCHES, ceiling

    _wait_for_answer(api, within_s=wait_s)
    try:
        with get_client(sync_client=True) as client:
            applied = apply_pool(client)
            limit = ceiling(client)
            applied.append(
                Applied(
                    kind="limit", name=BATCHES, made=limit.made, detail=f"{limit.at_once} at once"
                )
            )
            applied += apply_automations(client)
            deployed, edits = apply_deployments(client, content, before=before, reset=reset)
    except (httpx.HTTPError, PrefectHTTPStatusError) as err:
        raise LocalError(f"the Prefect server at {without_user(api)} refused: {err}") from err
    return applied + deployed, edits


def apply_pool(client: SyncPrefectClient) -> list[Applied]:
    """Create the work pool (runs are processes on the workers' machines) and its queues.

    Raises:
        LocalError: The server has a pool of this name and another type.
    """
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
                f"the server has a work pool {POOL} of type {pool.type}; it must be of type process"
            )
        applied.append(Applied(kind="work pool", name=POOL, made=False, detail="process"))
    existing = {queue.name: queue for queue in client.read_work_queues(work_pool_name=POOL)}
    for name, at_once in QUEUES.items():
        queue = existing.get(name) or client.create_work_queue(
            name=name, work_pool_name=POOL, concurrency_limit=at_once
        )
        limit = queue.concurrency_limit
        applied.append(
            Applied(
                kind="queue",
                name=name,
                made=name not in existing,
                detail="no limit" if limit is None else f"{limit} at once",
            )
        )
    return applied


def apply_automations(client: SyncPrefectClient) -> list[Applied]:
    """Create or update the automations that mark lost runs as crashed.

    One that is there as it should be is left alone: an update gives its trigger a new id, and the
    server would forget the runs for which it waits.
    """
    applied = []
    for automation in automations():
        existing = client.read_automations_by_name(automation.name)
        if existing:
            automation.enabled = existing[0].enabled
            if existing[0].model_dump(exclude={"id"}) != automation.model_dump():
                client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)
        applied.append(
            Applied(
                kind="automation",
                name=automation.name,
                made=not existing,
                detail="" if automation.enabled else "disabled",
            )
        )
    return applied


def read_file() -> dict[str, Any]:
    """The content of `prefect.yaml`.

    Raises:
        LocalError: The installation has no such file.
    """
    import yaml

    path = PROJECT / "prefect.yaml"
    if not path.is_file():
        raise LocalError(f"no prefect.yaml in {PROJECT}: install coinml again")
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def apply_deployments(
    client: SyncPrefectClient,
    content: dict[str, Any],
    *,
    before: dict[str, Any] | None = None,
    reset: bool = False,
) -> tuple[list[Applied], list[Edit]]:
    """Apply the deployments as `prefect deploy` does; what a person paused or edited stays.

    Args:
        client: Of the server.
        content: As `apply_all`.
        before: As `apply_all`.
        reset: As `apply_all`; what is paused stays paused.

    Raises:
        LocalError: `prefect deploy` failed; has its output.
    """
    from prefect.exceptions import ObjectNotFound

    applied: list[Applied] = []
    edits: list[Edit] = []
    earlier = {full_name(config): config for config in (before or content)["deployments"]}
    # Of the configuration and not of what is applied: a kept edit still differs from it next time.
    record = {full_name(config): digests(of_config(config)) for config in content["deployments"]}
    earlier_fields = {name: of_config(config) for name, config in earlier.items()}
    for config in content["deployments"]:
        name = full_name(config)
        made = False
        try:
            found = client.read_deployment_by_name(name)
        except ObjectNotFound:
            made = True
        else:
            edits += keep_edits(
                config,
                of_server(found),
                name=name,
                last=read_record(client, name),
                before=earlier_fields.get(name, {}),
                reset=reset,
            )
            if reset:
                _remove_added_schedules(client, config, found)
            _keep_pauses(client, config, found)
        applied.append(
            Applied(kind="deployment", name=name, made=made, detail=_when_it_runs(config))
        )
    _prefect_deploy(content)
    for name, fields in record.items():
        write_record(client, name, fields)
    return applied, edits


def full_name(config: dict[str, Any]) -> str:
    """A deployment's name on the server, `<flow>/<name>`; a flow has the name of its file."""
    return f"{flow_of(config)}/{config['name']}"


def _wait_for_answer(api: str, *, within_s: float) -> None:
    """Poll the server's health until it answers.

    Raises:
        LocalError: It did not answer in time.
    """
    import httpx

    deadline = time.monotonic() + within_s
    while True:
        try:
            httpx.get(f"{api}/health", timeout=10).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as err:
            if time.monotonic() >= deadline:
                text = f"the Prefect server at {without_user(api)} does not answer"
                raise LocalError(f"{text}: {err}") from err
        else:
            return
        time.sleep(0.3)


def _remove_added_schedules(
    client: SyncPrefectClient, config: dict[str, Any], existing: DeploymentResponse
) -> None:
    """Remove schedules that a person has added; `prefect deploy` leaves them."""
    ours = {schedule["slug"] for schedule in config.get("schedules", ())}
    for schedule in existing.schedules:
        if schedule.slug not in ours:
            client.delete_deployment_schedule(existing.id, schedule.id)


def _keep_pauses(client: SyncPrefectClient, config: dict[str, Any], existing: Any) -> None:
    """Copy into a deployment's configuration what a person has paused on the server."""
    config["paused"] = existing.paused
    active = {slug_of(schedule): schedule.active for schedule in existing.schedules}
    for schedule in config.get("schedules", ()):
        schedule["active"] = active.get(schedule["slug"], True)
    for trigger in config.get("triggers", ()):
        for automation in client.read_automations_by_name(trigger["name"]):
            trigger["enabled"] = automation.enabled


def _when_it_runs(config: dict[str, Any]) -> str:
    """A deployment's schedules and triggers in a few words."""
    parts = []
    for schedule in config.get("schedules", ()):
        paused = "" if schedule.get("active", True) else " (paused)"
        times = next(schedule[kind] for kind in ("cron", "interval", "rrule") if kind in schedule)
        zone = schedule.get("timezone", "UTC")
        parts.append(f"{schedule['slug']} at {times} {zone}{paused}")
    for trigger in config.get("triggers", ()):
        disabled = "" if trigger.get("enabled", True) else " (disabled)"
        parts.append(f"on {', '.join(trigger['expect'])}{disabled}")
    when = "; ".join(parts) or "by hand"
    return f"{when}; paused" if config.get("paused") else when


def _prefect_deploy(content: dict[str, Any]) -> None:
    import yaml

    with tempfile.TemporaryDirectory(prefix="coinml-deploy-") as folder:
        file = Path(folder) / "prefect.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        run = subprocess.run(
            [
                *(sys.executable, "-P", "-m", "prefect", "--no-prompt"),
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
        output = (run.stdout + run.stderr).strip()
        raise LocalError(f"prefect deploy failed:\n{output[-4000:]}")
