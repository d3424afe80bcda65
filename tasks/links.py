"""Links to Prefect's pages: of the flow run, for MLflow's runs, and of artifacts, for the log."""

from __future__ import annotations

import functools
import logging
import os

import httpx
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from prefect.utilities.urls import url_for

from tasks.artifact_keys import artifact_page

logger = logging.getLogger(__name__)


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
    if not flow_run.id or _ui() is None:
        return None
    return url_for("flow-run", flow_run.id)


def log_artifacts(*keys: str) -> None:
    """Log the pages of artifacts, since Prefect's menu does not lead to them."""
    address = _ui()
    if address is not None:
        for key in keys:
            logger.info("%s: %s", key, artifact_page(address, key))


def _ui() -> str | None:
    """The address of Prefect's pages, if they answer."""
    address = get_current_settings().ui_url
    return address if address and _answers(address) else None


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
