"""The services of a stack: command, environment and health check of each."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coinml.runtime import proxies
from coinml.runtime.proxies import loopback_direct
from coinml_ops.access.password import (
    PREFECT_CLIENT,
    PREFECT_SERVER,
    VARIABLE,
    auth_string,
    client_variables,
    read_password,
)
from coinml_ops.stack.postgres import Databases
from coinml_ops.stack.record import Stack
from coinml_ops.work_pool import DEFAULT_QUEUE, POOL, QUEUES

MARK = "COINML_STACK"
"""Environment variable with the stack's id; identifies its processes and their children."""
SERVICE = "COINML_STACK_SERVICE"
"""Environment variable with the service's name."""

PREFECT, MLFLOW, METRICS = "prefect", "mlflow", "metrics"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

NOT_FOR_SERVERS = (
    *("COINML_POSTGRES", "COINML_LEDGER_URL", "COINML_PROXY", "COINML_COOKIES", VARIABLE),
    *("COINML_YTDLP_EXTRACTOR_ARGS", "COINML_EMBEDDINGS_ROOT"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"),
    *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"),
    *proxies.VARIABLES,
)
"""Variables that only workers need; some hold a password."""

# With the defaults (1, 1, 5) the recorder falls half a minute behind 1,000 tasks.
RECORDER = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}
_DAY_S = 86400
# By default only events are removed: runs, with their logs and artifacts, stay for ever.
VACUUM = {
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(30 * _DAY_S),
}
QUIET = {
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One long-running process.

    Attributes:
        name: Name of the service and of its log.
        command: Command line, without secrets: every user of the machine can read it.
        environment: Variables added to the caller's environment.
        unset: Variables removed from it.
        health: URL that answers 200 when it is up; None for a worker.
        needs: Path of Prefect's API that must answer 200 before it is started, if any.
        queue: The work queue that it serves, if it is a worker.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    unset: tuple[str, ...] = ()
    health: str | None = None
    needs: str | None = None
    queue: str | None = None

    def full_environment(self) -> dict[str, str]:
        """The environment of its process."""
        inherited = {key: value for key, value in os.environ.items() if key not in self.unset}
        return {**inherited, **self.environment}


def services(stack: Stack) -> tuple[Service, ...]:
    """The services of a stack, in the order of starting."""
    workers = (_worker(stack, queue) for queue in QUEUES)
    return (_prefect(stack), _mlflow(stack), _metrics(stack), *workers)


def _prefect(stack: Stack) -> Service:
    folder = Path(stack.home) / "data" / "prefect"
    if stack.postgres:
        database = Databases(stack.postgres).prefect
    else:
        # Commands that start a local server write to the same file, so their runs are shown here.
        database = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    origins = [f"http://{name}:{stack.prefect_port}" for name in ("127.0.0.1", "localhost")]
    return Service(
        name=PREFECT,
        command=(
            *(sys.executable, "-P", "-m", "coinml_ops.prefect_server.process"),
            *("--host", stack.host, "--port", str(stack.prefect_port)),
            *(part for name in allowed_hosts(stack) for part in ("--allow-host", name)),
        ),
        environment={
            **_common(stack, PREFECT),
            **RECORDER,
            PREFECT_SERVER: auth_string(_password(stack)),
            "PREFECT_HOME": str(folder),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            # The defaults of 5 and 10 s are too short for SQLite on a busy machine.
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "60",
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
            "PREFECT_SERVER_UI_ENABLED": "true",
            "PREFECT_SERVER_UI_API_URL": stack.prefect_api,
            # Prefect's default lets every web site read this API.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join([stack.prefect_url, *origins]),
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "true",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "true",
            "PREFECT_SERVER_SERVICES_TRIGGERS_ENABLED": "true",
            "PREFECT_SERVER_SERVICES_FOREMAN_ENABLED": "true",
            **{name: os.environ.get(name, value) for name, value in VACUUM.items()},
        },
        unset=("PREFECT_API_URL", "PREFECT_API_KEY", PREFECT_CLIENT, *NOT_FOR_SERVERS),
        health=f"{stack.prefect_api}/health",
    )


def _mlflow(stack: Stack) -> Service:
    home = Path(stack.home)
    database = (
        Databases(stack.postgres).mlflow if stack.postgres else f"sqlite:///{home / 'mlflow.db'}"
    )
    hosts = [
        f"{f'[{name}]' if ':' in name else name}:{stack.mlflow_port}"
        for name in allowed_hosts(stack)
    ]
    return Service(
        name=MLFLOW,
        command=(
            # The entry point that puts the password before MLflow's own app.
            *(sys.executable, "-P", "-m", "mlflow", "server", "--app-name", "coinml"),
            *("--host", stack.host, "--port", str(stack.mlflow_port)),
            # The default of four workers, with the job runner that is not used here, takes 3.2 GB.
            *("--workers", "1", "--serve-artifacts"),
            *("--artifacts-destination", (home / "mlartifacts").as_uri()),
            # The default allows 10.* for private networks, and with it 10.evil.com.
            *("--allowed-hosts", ",".join(hosts)),
            *("--uvicorn-opts", "--log-level warning --timeout-graceful-shutdown 5"),
        ),
        environment={
            **_common(stack, MLFLOW),
            VARIABLE: _password(stack),
            "MLFLOW_BACKEND_STORE_URI": database,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        unset=("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", *NOT_FOR_SERVERS),
        health=f"{stack.mlflow_url}/health",
    )


def _metrics(stack: Stack) -> Service:
    ledger = _ledger_url(stack)
    # It reads the embedding sets, unlike the other servers.
    kept = {"COINML_EMBEDDINGS_ROOT", "COINML_LEDGER_URL", VARIABLE}
    return Service(
        name=METRICS,
        command=(
            *(sys.executable, "-P", "-m", "coinml_ops.metrics.process"),
            *("--host", stack.host, "--port", str(stack.metrics_port)),
            *(part for name in allowed_hosts(stack) for part in ("--allow-host", name)),
        ),
        environment={
            **_common(stack, METRICS),
            VARIABLE: _password(stack),
            "PREFECT_API_URL": stack.prefect_api,
            **({"COINML_LEDGER_URL": ledger} if ledger else {}),
        },
        unset=tuple(name for name in NOT_FOR_SERVERS if name not in kept),
        health=f"{stack.metrics_url}/health",
    )


def _worker(stack: Stack, queue: str) -> Service:
    ledger = _ledger_url(stack)
    return Service(
        name=f"worker-{queue}",
        command=(
            *(sys.executable, "-P", "-m", "prefect", "worker", "start", "--pool", POOL),
            *(part for one in _served(queue) for part in ("--work-queue", one)),
            *("--type", "process", "--name", worker_name(queue)),
        ),
        environment={
            **_common(stack, f"worker-{queue}"),
            "PREFECT_HOME": str(Path(stack.home) / "data" / "prefect"),
            "PREFECT_API_URL": stack.prefect_api,
            "MLFLOW_TRACKING_URI": stack.mlflow_url,
            **client_variables(_password(stack)),
            **({"COINML_LEDGER_URL": ledger} if ledger else {}),
            # The log of a worker and its runs, unlike a terminal, gets every message.
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
            # The default of 10 s is long for somebody who waits in a browser.
            "PREFECT_WORKER_QUERY_SECONDS": "5",
        },
        unset=("COINML_POSTGRES", VARIABLE, "PREFECT_API_KEY", "MLFLOW_TRACKING_TOKEN"),
        # A worker that starts first would create pool and queues without `coinml deploy`'s limits.
        needs=f"/work_pools/{POOL}/queues/{queue}",
        queue=queue,
    )


def _served(queue: str) -> tuple[str, ...]:
    """The queues of a queue's worker.

    The one without a limit serves Prefect's own queue, too. Without a worker, that would be shown
    as not ready, and a run that a person sends to the pool alone would never begin.
    """
    return (queue,) if QUEUES[queue] is not None else (queue, DEFAULT_QUEUE)


def worker_name(queue: str) -> str:
    """A worker's name on its Prefect server, unique for each machine."""
    return f"{queue}@{socket.gethostname()}"


def allowed_hosts(stack: Stack) -> tuple[str, ...]:
    """Values of the Host header that the servers accept.

    A foreign page whose host name resolves to 127.0.0.1 (DNS rebinding) passes the browser's
    same-origin rule, but its requests still carry its own host name.
    """
    names = [*LOOPBACK, *stack.names]
    if stack.host in ("0.0.0.0", "::"):
        import psutil

        families = (socket.AF_INET, socket.AF_INET6)
        names += [socket.gethostname(), socket.getfqdn()]
        names += [
            address.address.partition("%")[0]
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family in families
        ]
    else:
        names.append(stack.host)
    return tuple(dict.fromkeys(names))


def _ledger_url(stack: Stack) -> str:
    return Databases(stack.postgres).ledger if stack.postgres else stack.ledger_url


def _password(stack: Stack) -> str:
    return read_password(Path(stack.home) / "data")


def _common(stack: Stack, name: str) -> dict[str, str]:
    return {
        **QUIET,
        **loopback_direct(stack.host),
        MARK: stack.id,
        SERVICE: name,
        "COINML_HOME": stack.home,
    }
