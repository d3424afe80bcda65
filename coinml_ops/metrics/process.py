"""Serves a home's metrics to Prometheus, at /metrics, and tells of deployments that are not well.

Run as ``python -P -m coinml_ops.metrics.process --port P``. COINML_HOME, PREFECT_API_URL and the
password are read from the environment.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from coinml.runtime.settings import Settings
from coinml_ops.access.gate import PasswordOnly, guarded
from coinml_ops.access.password import VARIABLE
from coinml_ops.alerts.watch import watch_in_a_thread
from coinml_ops.metrics.home_collector import HomeCollector
from coinml_ops.prefect_project import import_from_project
from coinml_ops.stack.health import Api

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp


def main() -> None:
    """Serve the metrics of COINML_HOME."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--allow-host", action="append", default=["127.0.0.1", "localhost"])
    options = parser.parse_args()
    password = os.environ.get(VARIABLE, "")
    if not password:
        sys.exit(f"{VARIABLE} is not set: without a password, every user could read the metrics")

    import uvicorn

    # The watch takes the names of events from `tasks`.
    import_from_project()
    settings, api = Settings(), Api(os.environ["PREFECT_API_URL"], password)
    watch_in_a_thread(settings, api)
    app = guarded(
        metrics_app(settings, api),
        options.allow_host,
        port=options.port,
    )
    uvicorn.run(
        PasswordOnly(app, password, open_paths=["/health"]),
        host=options.host,
        port=options.port,
        log_level="warning",
        timeout_graceful_shutdown=5,
    )


def metrics_app(settings: Settings, api: Api) -> ASGIApp:
    """An app that answers /metrics, and /health without reading anything.

    Args:
        settings: Whose home.
        api: Of its Prefect server.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from starlette import responses
    from starlette.applications import Starlette
    from starlette.routing import Route

    registry = CollectorRegistry()
    registry.register(HomeCollector(settings, api))

    # Not a coroutine: Starlette runs it in a thread, and /health answers meanwhile.
    def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return responses.Response(encode(registry), headers={"Content-Type": content_type})

    def health(_: Request) -> Response:
        return responses.PlainTextResponse("OK")

    return Starlette(routes=[Route("/metrics", metrics), Route("/health", health)])


if __name__ == "__main__":
    main()
