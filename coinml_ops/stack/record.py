"""What is known of a home's stack, on disk: how it is set up, and which processes it has.

`data/stack/stack.json` is written by `coinml up` before anything runs, and by the supervisor
from then on. It can hold a password (PostgreSQL's), so that only its owner may read it.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.runtime.process_identity import process_start

if TYPE_CHECKING:
    from filelock import FileLock

POOL = "coinml"
QUEUES = ("network", "gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process that can be told from a later one of the same id.

    Attributes:
        pid: Its id.
        started: When it began, as `coinml.runtime.process_identity.process_start` has it.
        restarts: How often it came back after it had died.
    """

    pid: int
    started: str
    restarts: int = 0

    @classmethod
    def of(cls, pid: int, *, restarts: int = 0) -> Process:
        """A process that runs now."""
        return cls(pid=pid, started=process_start(pid), restarts=restarts)

    def alive(self) -> bool:
        """Whether it still runs."""
        return bool(self.started) and process_start(self.pid) == self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """How a stack is set up, and its processes.

    Attributes:
        id: Marks the processes of this stack (environment variable COINML_STACK).
        home: COINML_HOME.
        host: The address that the servers bind to.
        prefect_port: Prefect's.
        mlflow_port: MLflow's.
        names: Further host names by which the servers may be called.
        postgres: URL of the PostgreSQL server, or "".
        ledger_url: The ledger that the workers are told of, or "" for the home's own.
        dataset: What the scheduled deployments work on, or "" for `coinml deploy`'s choice.
        supervisor: Who starts and watches the services; None while the stack is down.
        services: The process of each service by its name.
    """

    id: str
    home: str
    host: str = "127.0.0.1"
    prefect_port: int = 4200
    mlflow_port: int = 5000
    names: tuple[str, ...] = ()
    postgres: str = field(default="", repr=False)
    ledger_url: str = field(default="", repr=False)
    dataset: str = ""
    supervisor: Process | None = None
    services: dict[str, Process] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the stack keeps what it has to know."""
        return stack_dir(Path(self.home))

    @property
    def logs(self) -> Path:
        """Where each service writes `<service>.log`."""
        return Path(self.home) / "data" / "logs"

    @property
    def prefect_url(self) -> str:
        """Where Prefect's pages are."""
        return f"http://{self._reachable}:{self.prefect_port}"

    @property
    def prefect_api(self) -> str:
        """What PREFECT_API_URL is to be."""
        return f"{self.prefect_url}/api"

    @property
    def mlflow_url(self) -> str:
        """Where MLflow's pages are, and what MLFLOW_TRACKING_URI is to be."""
        return f"http://{self._reachable}:{self.mlflow_port}"

    @property
    def _reachable(self) -> str:
        if self.host in ("0.0.0.0", "::"):
            return "127.0.0.1"
        return f"[{self.host}]" if ":" in self.host else self.host

    def up(self) -> bool:
        """Whether its supervisor runs."""
        return self.supervisor is not None and self.supervisor.alive()


def stack_dir(home: Path) -> Path:
    """The folder of a home's stack."""
    return home / "data" / "stack"


def read(home: Path) -> Stack | None:
    """The stack of a home, whether it runs or not; None if there never was one."""
    try:
        known: dict[str, Any] = json.loads((stack_dir(home) / "stack.json").read_text())
        supervisor = known.pop("supervisor")
        services = known.pop("services")
        return Stack(
            **{**known, "names": tuple(known["names"])},
            supervisor=None if supervisor is None else Process(**supervisor),
            services={name: Process(**one) for name, one in services.items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(stack: Stack) -> None:
    """Put a stack on record, readable by its owner alone."""
    with _alone(stack.folder):
        _write(stack)


def update(home: Path, **changes: Any) -> None:
    """Change some of what is on record; the rest stays as whoever else has written it."""
    with _alone(stack_dir(home)):
        stack = read(home)
        if stack is not None:
            _write(dataclasses.replace(stack, **changes))


def _alone(folder: Path) -> FileLock:
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "stack.json.lock")


def _write(stack: Stack) -> None:
    temporary = stack.folder / "stack.json.tmp"
    temporary.unlink(missing_ok=True)
    # Nobody else may read it for a moment even.
    temporary.touch(mode=0o600, exist_ok=False)
    temporary.write_text(json.dumps(dataclasses.asdict(stack), indent=2))
    temporary.replace(stack.folder / "stack.json")
