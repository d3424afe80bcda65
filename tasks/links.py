"""Links from MLflow runs back to the page of the flow run in Prefect."""

from __future__ import annotations

import functools
import os

import httpx
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for


def flow_run_tags() -> dict[str, str]:
    """Tags for an MLflow run: the flow run's id, and the address of its page if there is one."""
    tags = {"prefect_flow_run_id": str(flow_run.id or "")}
    page = flow_run_page()
    return tags if page is None else {**tags, "prefect_flow_run_page": page}


def flow_run_links() -> dict[str, str]:
    """Links for the description of an MLflow run: the page's address by the link's text."""
    page = flow_run_page()
    return {} if page is None else {f"Prefect: {flow_run.name}": page}


def flow_run_page() -> str | None:
    """The address of this flow run's page, if a UI answers there."""
    address = get_current_settings().ui_url
    if not flow_run.id or not address or not _answers(address):
        return None
    return url_for("flow-run", flow_run.id)


@functools.lru_cache(maxsize=4)
def _answers(address: str) -> bool:
    # A configured address is trusted. One derived from the API's may not exist: the server that a
    # command starts for itself has no UI.
    if os.environ.get("PREFECT_UI_URL"):
        return True
    try:
        answer = httpx.get(address, timeout=3, follow_redirects=True)
    except httpx.HTTPError:
        return False
    return answer.is_success and "html" in answer.headers.get("Content-Type", "")
