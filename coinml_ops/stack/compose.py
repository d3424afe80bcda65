"""A Docker Compose file that runs the services of a stack: `coinml up --print compose`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from coinml_ops.stack.record import Stack
from coinml_ops.stack.services import METRICS, MLFLOW, PREFECT
from coinml_ops.work_pool import QUEUES

IMAGE = "coinml:local"
STATE = "/state"
RUN_SERVICE = ("python", "-P", "-m", "coinml_ops.stack")
HEADER = """\
# Prefect, MLflow, metrics, two workers, and the deployments: docker compose up --detach --build
# The state is in the volume `state`, not in the COINML_HOME of this machine.
# For a GPU, give worker-gpu `gpus: all`.
"""


def compose_file(stack: Stack, *, code: Path, secrets: tuple[Path, Path]) -> str:
    """The file's text. Ports are published on this machine's loopback address only.

    Args:
        stack: The published ports, and the dataset.
        code: The checkout with the Dockerfile.
        secrets: Files of variables that only their owner may read: the servers' password, which
            must exist, and the others.
    """
    inside = {
        "COINML_HOME": STATE,
        "PREFECT_API_URL": f"http://{PREFECT}:{stack.prefect_port}/api",
        "MLFLOW_TRACKING_URI": f"http://{MLFLOW}:{stack.mlflow_port}",
    }
    common: dict[str, Any] = {
        "image": IMAGE,
        "build": {"context": _literal(str(code))},
        "init": True,
        "environment": inside,
        "env_file": [
            {"path": _literal(str(path)), "required": required}
            for path, required in zip(secrets, (True, False), strict=True)
        ],
        "volumes": [f"state:{STATE}"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
    }
    servers = {
        PREFECT: _server(common, PREFECT, stack.prefect_port, "/api/health"),
        MLFLOW: _server(common, MLFLOW, stack.mlflow_port, "/health"),
        METRICS: _server(common, METRICS, stack.metrics_port, "/health"),
    }
    workers = {
        f"worker-{queue}": {
            **common,
            "command": [*RUN_SERVICE, f"worker-{queue}"],
            "depends_on": {
                "deploy": {"condition": "service_completed_successfully"},
                MLFLOW: {"condition": "service_healthy"},
            },
            # Time for its flow runs to stop and report their state.
            "stop_grace_period": "90s",
        }
        for queue in QUEUES
    }
    deploy = {
        **common,
        "command": [
            "coinml",
            "deploy",
            *(("--dataset", _literal(stack.dataset)) if stack.dataset else ()),
        ],
        "depends_on": {PREFECT: {"condition": "service_healthy"}},
        "restart": "on-failure",
    }
    content = {
        "name": "coinml",
        "services": {**servers, "deploy": deploy, **workers},
        "volumes": {"state": {}},
    }
    return HEADER + str(yaml.dump(content, Dumper=_Plain, sort_keys=False, width=100))


def _literal(text: str) -> str:
    """A text of which Compose takes no part for a variable."""
    return text.replace("$", "$$")


class _Plain(yaml.SafeDumper):  # type: ignore[misc]
    """Repeats shared values in full instead of YAML aliases, for people to read."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _server(common: dict[str, Any], name: str, port: int, path: str) -> dict[str, Any]:
    # Docker may give containers a proxy, through which 127.0.0.1 is another machine.
    look = (
        "import urllib.request as r; r.build_opener(r.ProxyHandler({}))"
        f".open('http://127.0.0.1:{port}{path}', timeout=5)"
    )
    return {
        **common,
        # Reachable within the containers' network, where its host name is the service's name.
        "command": [
            *RUN_SERVICE,
            name,
            "--host",
            "0.0.0.0",
            "--allow-host",
            name,
            f"--{name}-port",
            str(port),
        ],
        # The same port outside as inside: Prefect's pages are told the address of its API.
        "ports": [f"127.0.0.1:{port}:{port}"],
        "healthcheck": {
            "test": ["CMD", "python", "-c", look],
            "interval": "15s",
            "timeout": "10s",
            "retries": 5,
            "start_period": "120s",
        },
    }
