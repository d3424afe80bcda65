"""A Docker Compose file, and the image it builds: `coinml up --print compose`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from coinml_ops.stack.record import QUEUES, Stack
from coinml_ops.stack.services import MLFLOW, PREFECT

IMAGE = "coinml:local"
STATE = "/state"
HEADER = """\
# Prefect, MLflow, two workers, and the deployments: docker compose up --detach --build
# The state is in the volume `state`, not in the folder of a `coinml` without containers.
# For a GPU, give worker-gpu `gpus: all`.
"""


def compose_file(stack: Stack, *, code: Path, secrets: Path) -> str:
    """The file's text. Published ports are on this machine's loopback.

    Args:
        stack: The ports that are published, and the dataset.
        code: The checkout with the Dockerfile.
        secrets: The file of variables that are nobody else's business; it need not exist.
    """
    inside = {
        "COINML_HOME": STATE,
        "PREFECT_API_URL": f"http://{PREFECT}:{stack.prefect_port}/api",
        "MLFLOW_TRACKING_URI": f"http://{MLFLOW}:{stack.mlflow_port}",
    }
    common: dict[str, Any] = {
        "image": IMAGE,
        "build": {"context": str(code)},
        "init": True,
        "environment": inside,
        "env_file": [{"path": str(secrets), "required": False}],
        "volumes": [f"state:{STATE}"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
    }
    servers = {
        PREFECT: _server(common, PREFECT, stack.prefect_port, "/api/health"),
        MLFLOW: _server(common, MLFLOW, stack.mlflow_port, "/health"),
    }
    workers = {
        f"worker-{queue}": {
            **common,
            "command": ["python", "-m", "coinml_ops.stack", f"worker-{queue}"],
            "depends_on": {
                "deploy": {"condition": "service_completed_successfully"},
                MLFLOW: {"condition": "service_healthy"},
            },
            # Its runs are ended first, and say what became of them.
            "stop_grace_period": "90s",
        }
        for queue in QUEUES
    }
    deploy = {
        **common,
        "command": ["coinml", "deploy", *(("--dataset", stack.dataset) if stack.dataset else ())],
        "depends_on": {PREFECT: {"condition": "service_healthy"}},
        "restart": "on-failure",
    }
    content = {
        "name": "coinml",
        "services": {**servers, "deploy": deploy, **workers},
        "volumes": {"state": {}},
    }
    return HEADER + str(yaml.dump(content, Dumper=_Plain, sort_keys=False, width=100))


class _Plain(yaml.SafeDumper):  # type: ignore[misc]
    """Writes what occurs twice twice, for people to read."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def _server(common: dict[str, Any], name: str, port: int, path: str) -> dict[str, Any]:
    look = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{port}{path}', timeout=5)"
    return {
        **common,
        # Within the containers' own network; the others call it by its service's name.
        "command": [
            "python",
            "-m",
            "coinml_ops.stack",
            name,
            "--host",
            "0.0.0.0",
            "--allow-host",
            name,
            f"--{name}-port",
            str(port),
        ],
        # The same port outside as inside, since Prefect tells its pages where its API is.
        "ports": [f"127.0.0.1:{port}:{port}"],
        "healthcheck": {
            "test": ["CMD", "python", "-c", look],
            "interval": "15s",
            "timeout": "10s",
            "retries": 5,
            "start_period": "120s",
        },
    }
