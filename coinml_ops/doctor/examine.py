"""Runs every check of `coinml doctor`: one finding for each subject, with a remedy."""

from __future__ import annotations

from collections.abc import Callable

from coinml.runtime.proxies import named_proxies
from coinml.runtime.settings import Settings
from coinml_ops.doctor.access import check_access
from coinml_ops.doctor.databases import check_ledger, check_mlflow_store, check_prefect_database
from coinml_ops.doctor.finding import Finding
from coinml_ops.doctor.home import check_home
from coinml_ops.doctor.machine import (
    check_confinement,
    check_decoders,
    check_disk,
    check_kernels,
    check_python,
    check_torch,
)
from coinml_ops.doctor.servers import (
    check_mlflow_server,
    check_prefect,
    check_runs,
    check_workers,
)
from coinml_ops.doctor.source import (
    check_cookies,
    check_http_proxy,
    check_javascript,
    check_po_tokens,
    check_proxy,
    check_ytdlp,
)
from coinml_ops.environment import same_place
from coinml_ops.stack import record

__all__ = ["Finding", "examine"]


def examine(settings: Settings, *, prefect_api: str | None = None) -> list[Finding]:
    """Run all checks; a check that raises becomes a finding with the state "failed".

    Args:
        settings: This machine's.
        prefect_api: The Prefect server that commands use; None if they start a local one.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "python": check_python,
        "torch": lambda: check_torch(settings),
        "kernels": check_kernels,
        "decoders": check_decoders,
        "confinement": check_confinement,
        "yt-dlp": check_ytdlp,
        "javascript": check_javascript,
        "po-tokens": lambda: check_po_tokens(settings),
        "cookies": lambda: check_cookies(settings),
        "proxy": lambda: check_proxy(settings),
        "home": lambda: check_home(settings),
        "disk": lambda: check_disk(settings),
        "access": lambda: check_access(settings),
        "ledger": lambda: check_ledger(settings),
        **({} if prefect_api is None else {"runs": lambda: check_runs(settings, prefect_api)}),
        "mlflow": lambda: check_mlflow_store(settings),
        "prefect": lambda: check_prefect(prefect_api),
    }
    if settings.tracking_uri.startswith(("http://", "https://")):
        checks["mlflow"] = lambda: check_mlflow_server(settings)
    prefect_database = settings.data_dir / "prefect" / "prefect.db"
    if prefect_database.exists():
        checks["prefect database"] = lambda: check_prefect_database(prefect_database)
    if named_proxies():
        checks["http proxy"] = check_http_proxy
    if prefect_api is not None:
        stack = record.read(settings.home)
        is_its = stack is not None and stack.up() and same_place(prefect_api, stack.prefect_api)
        checks["workers"] = lambda: check_workers(prefect_api, stack if is_its else None)
    findings = []
    for subject, check in checks.items():
        try:
            findings.append(check())
        # One failing check must not hide the findings of the others.
        except Exception as err:
            text = f"{type(err).__name__}: {err}"
            findings.append(Finding(subject=subject, state="failed", text=text))
    return findings
