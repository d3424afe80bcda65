"""Checks that other users of this machine can neither read the servers' password nor do without."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from coinml.runtime.settings import Settings
from coinml_ops.access.password import password_file
from coinml_ops.doctor.finding import Finding
from coinml_ops.stack import record

TIMEOUT_S = 5.0


def check_access(settings: Settings) -> Finding:
    """Whether only this user can use the servers of this home."""
    path = password_file(settings.data_dir)
    stack = record.read(settings.home)
    if stack is not None and stack.up():
        urls = (
            f"{stack.prefect_api}/admin/version",
            f"{stack.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=1",
        )
        if not stack.guarded or any(map(_is_open, urls)):
            return Finding(
                subject="access",
                state="failed",
                text="every user of this machine can use the servers of `coinml up`",
                remedy="coinml up replaces them by servers with a password",
            )
    if not path.is_file():
        return Finding(subject="access", state="ok", text="no password yet: no server has run here")
    if (fault := _readable_by_others(path)) is not None:
        return Finding(
            subject="access",
            state="failed",
            text=f"{path}, with the servers' password, {fault}",
            remedy=f"coinml down, rm {path}, coinml up",
        )
    return Finding(subject="access", state="ok", text=f"the servers ask for the password in {path}")


def _is_open(url: str) -> bool:
    """Whether a server answers a request without the password."""
    try:
        return httpx.get(url, timeout=TIMEOUT_S, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _readable_by_others(path: Path) -> str | None:
    status = path.stat()
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    return "can be read by other users" if status.st_mode & 0o077 else None
