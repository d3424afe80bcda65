"""Checks that Prefect's and MLflow's servers answer, with the version installed here.

By plain HTTP: importing either client takes longer than all other checks together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from coinml.runtime.addresses import without_password, without_user
from coinml.runtime.settings import Settings
from coinml_ops.access.password import MLFLOW_PASSWORD, MLFLOW_USER, PREFECT_CLIENT
from coinml_ops.doctor.finding import Finding, installed
from coinml_ops.stack.health import silent_s
from coinml_ops.stack.record import Stack
from coinml_ops.stack.services import worker_name
from coinml_ops.work_pool import POOL, QUEUES

TIMEOUT_S = 5.0
_PASSWORDS = {"prefect": PREFECT_CLIENT, "mlflow": f"{MLFLOW_USER} and {MLFLOW_PASSWORD}"}


def check_mlflow_server(settings: Settings) -> Finding:
    """Whether the tracking server answers, and with which version."""
    uri = settings.tracking_uri.rstrip("/")
    return _check_version(
        "mlflow",
        uri,
        f"{uri}/version",
        user=(os.environ.get(MLFLOW_USER, ""), os.environ.get(MLFLOW_PASSWORD, "")),
        remedy="start it (`coinml up`), or see MLFLOW_TRACKING_URI",
    )


def check_prefect(api: str | None) -> Finding:
    """Whether the Prefect server answers, and with which version."""
    if api is None:
        return Finding(
            subject="prefect",
            state="ok",
            text=f"{installed('prefect')}, commands start a local server",
        )
    return _check_version(
        "prefect",
        api,
        f"{api.rstrip('/')}/admin/version",
        user=_prefect_user(),
        remedy="start it (`coinml up`), or see PREFECT_API_URL",
    )


def check_workers(api: str, stack: Stack | None = None) -> Finding:
    """Whether workers are online to run deployments.

    Args:
        api: The Prefect server's.
        stack: The running stack that it belongs to, if any: each of its workers is expected.
    """
    pool = f"{api.rstrip('/')}/work_pools/{POOL}"
    try:
        answer = _ask("POST", f"{pool}/workers/filter", user=_prefect_user(), json={})
    except httpx.HTTPError as err:
        return Finding(subject="workers", state="warning", text=_text(err))
    if answer.status_code == httpx.codes.NOT_FOUND:
        return Finding(
            subject="workers",
            state="warning",
            text=f"no work pool {POOL}, so no deployments",
            remedy="coinml deploy",
        )
    if not answer.is_success:
        return Finding(subject="workers", state="warning", text=f"HTTP {answer.status_code}")
    workers, now = answer.json(), _time_of(answer)
    if stack is not None and (silent := _silent(workers, now=now)):
        return Finding(
            subject="workers",
            state="failed",
            text="; ".join(silent),
            remedy="`coinml up` starts what is missing; the supervisor restarts what hangs within "
            "minutes, see data/logs/supervisor.log",
        )
    if stack is None and (left := _left_queues(pool, now=now)):
        return Finding(
            subject="workers",
            state="failed",
            text="; ".join(left),
            remedy="see the worker's service (systemd, Docker Compose) or start one: "
            f"prefect worker start --pool {POOL}",
        )
    online = [worker["name"] for worker in workers if worker["status"] == "ONLINE"]
    if not online:
        return Finding(
            subject="workers",
            state="warning",
            text="none online: nothing scheduled runs",
            remedy=f"coinml up, or prefect worker start --pool {POOL}",
        )
    return Finding(subject="workers", state="ok", text=", ".join(sorted(online)))


def check_runs(settings: Settings, api: str) -> Finding:
    """Whether each deployment is well: no two failed runs, no collection that gets nothing."""
    from coinml_ops.deployments.health import find_troubles

    def ask(path: str, body: dict[str, Any]) -> Any:
        answer = _ask("POST", f"{api.rstrip('/')}{path}", user=_prefect_user(), json=body)
        return answer.raise_for_status().json()

    try:
        troubles = find_troubles(settings, ask, now=datetime.now(UTC))
    except httpx.HTTPError as err:
        return Finding(
            subject="runs",
            state="warning",
            text=f"unknown: {_text(err)}",
            remedy="see prefect",
        )
    wrong = [f"{name}: {text}" for name, some in troubles.items() for text in some.values()]
    if wrong:
        return Finding(
            subject="runs",
            state="failed",
            text="; ".join(wrong),
            remedy="the runs' messages and logs in Prefect say more (`coinml ui`)",
        )
    return Finding(subject="runs", state="ok", text=f"{len(troubles)} deployments are well")


def _silent(workers: Sequence[Mapping[str, Any]], *, now: datetime) -> list[str]:
    """A sentence for each worker of this machine's stack that sends no heartbeats."""
    heard = {one["name"]: one["last_heartbeat_time"] for one in workers}
    found = []
    for name in map(worker_name, QUEUES):
        if not heard.get(name):
            found.append(f"{name} has never been heard")
            continue
        since_s = (now - datetime.fromisoformat(heard[name])).total_seconds()
        if since_s > silent_s():
            found.append(f"{name} has sent no heartbeat for {since_s / 60:.0f} min")
    return found


def _left_queues(pool: str, *, now: datetime) -> list[str]:
    """A sentence for each queue that a worker has served and none serves any more."""
    answer = _ask("POST", f"{pool}/queues/filter", user=_prefect_user(), json={})
    found = []
    for queue in answer.json() if answer.is_success else []:
        if queue["name"] in QUEUES and queue["last_polled"] is not None:
            since_s = (now - datetime.fromisoformat(queue["last_polled"])).total_seconds()
            if since_s > silent_s():
                found.append(
                    f"no worker has asked for runs of the queue {queue['name']} for "
                    f"{since_s / 60:.0f} min"
                )
    return found


def _time_of(answer: httpx.Response) -> datetime:
    """The server's time, which may differ from this machine's."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _check_version(
    package: str, shown: str, url: str, *, user: tuple[str, str], remedy: str
) -> Finding:
    shown, here = without_password(shown), installed(package)
    try:
        answer = _ask("GET", url, user=user)
    except httpx.HTTPError as err:
        text = f"{shown} does not answer: {_text(err)}"
        return Finding(subject=package, state="failed", text=text, remedy=remedy)
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return Finding(
            subject=package,
            state="failed",
            text=f"{shown} refuses without the right password",
            remedy=f"set {_PASSWORDS[package]}, as in the data/access.env of its COINML_HOME",
        )
    if not answer.is_success:
        return Finding(
            subject=package,
            state="failed",
            text=f"{shown} answers HTTP {answer.status_code}",
            remedy=remedy,
        )
    there = _version_in(answer)
    if there != here:
        return Finding(
            subject=package,
            state="warning",
            text=f"{shown} runs {there}, but {here} is installed",
            remedy="install the same version on both sides",
        )
    return Finding(subject=package, state="ok", text=f"{there} at {without_user(shown)}")


def _ask(method: str, url: str, *, user: tuple[str, str], json: Any = None) -> httpx.Response:
    """A server's answer; user and password in the URL, if it has them, win over the variables'."""
    auth = user if any(user) and not httpx.URL(url).userinfo else None
    return httpx.request(method, url, auth=auth, json=json, timeout=TIMEOUT_S)


def _prefect_user() -> tuple[str, str]:
    user, _, password = os.environ.get(PREFECT_CLIENT, "").partition(":")
    return user, password


def _version_in(answer: httpx.Response) -> str:
    """The version in an answer: a JSON string from Prefect, plain text from MLflow."""
    try:
        said: Any = answer.json()
    except ValueError:
        said = answer.text
    return str(said).strip()[:40]


def _text(err: httpx.HTTPError) -> str:
    return str(err) or type(err).__name__
