"""The pages of the results that runs have published in Prefect, whose menu does not list them."""

from __future__ import annotations

import http.client
import json
import urllib.error

from coinml_ops.stack.health import api_of
from coinml_ops.stack.record import Stack

_MOST = 50
_SHOWN = {
    "artifacts": {"type": {"any_": ["markdown", "image"]}},
    "sort": "KEY_ASC",
    "limit": _MOST,
}
"""All but progress, which is on the page of its run."""


def artifact_pages(stack: Stack) -> dict[str, str]:
    """Address by key, 50 at most; none if the server does not answer."""
    from tasks.artifact_keys import artifact_page

    try:
        found = json.loads(api_of(stack).post("/artifacts/latest/filter", _SHOWN))
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
        return {}
    return {one["key"]: artifact_page(stack.prefect_url, one["key"]) for one in found}
