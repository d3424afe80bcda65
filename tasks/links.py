"""The way from what a flow run leaves elsewhere back to its page."""

from __future__ import annotations

import functools
import os

import httpx
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for


def flow_run_tags() -> dict[str, str]:
    """Tags for an MLflow run: the flow run that it comes from, and its page if it has one."""
    tags = {"prefect_flow_run_id": str(flow_run.id or "")}
    page = flow_run_page()
    return tags if page is None else {**tags, "prefect_flow_run_page": page}


def flow_run_links() -> dict[str, str]:
    """The same for a description: the page by its name."""
    page = flow_run_page()
    return {} if page is None else {f"Prefect: {flow_run.name}": page}


def flow_run_page() -> str | None:
    """The address of this flow run's page, where there is a UI that shows it."""
    address = get_current_settings().ui_url
    if not flow_run.id or not address or not _answers(address):
        return None
    return url_for("flow-run", flow_run.id)


@functools.lru_cache(maxsize=4)
def _answers(address: str) -> bool:
    # Who names it knows of a UI; the address that is derived from the API's may lead nowhere, as
    # that of the server which a command starts for itself.
    if os.environ.get("PREFECT_UI_URL"):
        return True
    try:
        answer = httpx.get(address, timeout=3, follow_redirects=True)
    except httpx.HTTPError:
        return False
    return answer.is_success and "html" in answer.headers.get("Content-Type", "")
