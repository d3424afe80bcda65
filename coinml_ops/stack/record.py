"""The record of a home's stack on disk: its settings and its processes.

`data/stack/stack.json` is written by `coinml up` before anything runs, and by the supervisor
from then on. It can hold PostgreSQL's password, so only its owner may read it.
"""

from __future__ import annotations

import dataclasses
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.runtime.atomic_files import write_whole
from coinml.runtime.process_identity import process_start

if TYPE_CHECKING:
    from filelock import FileLock


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process, distinguishable from a later one with the same id.

    Attributes:
        pid: Process id.
        started: Its start time, from `coinml.runtime.process_identity.process_start`.
        restarts: How often the service was restarted after it had died.
    """

    pid: int
    started: str
    restarts: int = 0

    @classmethod
    def of(cls, pid: int, *, restarts: int = 0) -> Process:
        """The running process with this id."""
        return cls(pid=pid, started=process_start(pid), restarts=restarts)

    def alive(self) -> bool:
        """Whether it still runs."""
        return bool(self.started) and process_start(self.pid) == self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A stack's settings and processes.

    Attributes:
        id: Value of COINML_STACK in the environment of this stack's processes.
        home: COINML_HOME.
        host: The address that the servers bind to.
        prefect_port: Prefect's.
        mlflow_port: MLflow's.
        metrics_port: That of the page for Prometheus.
        names: Additional host names that requests to the servers may use.
        postgres: URL of the PostgreSQL server, or "".
        ledger_url: The workers' COINML_LEDGER_URL, or "" for the home's own ledger.
        dataset: Dataset of the scheduled deployments, or "" for `coinml deploy`'s default.
        guarded: Whether its servers ask for the home's password; versions before did not.
        moved_from: The path at which the home was when it was recorded, if that is another one; ""
            once its databases have the present path.
        supervisor: The process that starts and watches the services; None while it is down.
        services: The process of each service by its name.
    """

    id: str
    home: str
    host: str = "127.0.0.1"
    prefect_port: int = 4200
    mlflow_port: int = 5000
    metrics_port: int = 4201
    names: tuple[str, ...] = ()
    postgres: str = field(default="", repr=False)
    ledger_url: str = field(default="", repr=False)
    dataset: str = ""
    guarded: bool = False
    moved_from: str = ""
    supervisor: Process | None = None
    services: dict[str, Process] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder of the record and its locks."""
        return stack_dir(Path(self.home))

    @property
    def logs(self) -> Path:
        """Folder of the services' logs, `<service>.log`."""
        return Path(self.home) / "data" / "logs"

    @property
    def prefect_url(self) -> str:
        """Address of Prefect's pages."""
        return f"http://{self._reachable}:{self.prefect_port}"

    @property
    def prefect_api(self) -> str:
        """Value for PREFECT_API_URL."""
        return f"{self.prefect_url}/api"

    @property
    def mlflow_url(self) -> str:
        """Address of MLflow's pages, and value for MLFLOW_TRACKING_URI."""
        return f"http://{self._reachable}:{self.mlflow_port}"

    @property
    def metrics_url(self) -> str:
        """Address of the server whose /metrics Prometheus reads."""
        return f"http://{self._reachable}:{self.metrics_port}"

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
    """The stack of a home, running or not; None if there never was one."""
    try:
        known: dict[str, Any] = json.loads((stack_dir(home) / "stack.json").read_text())
        supervisor = known.pop("supervisor")
        services = known.pop("services")
        stack = Stack(
            **{**known, "names": tuple(known["names"])},
            supervisor=None if supervisor is None else Process(**supervisor),
            services={name: Process(**one) for name, one in services.items()},
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _at(home, stack)


def _at(home: Path, stack: Stack) -> Stack:
    """A record as that of the folder it is in, which may have been renamed or copied."""
    recorded = stack_dir(Path(stack.home))
    if stack.home == str(home) or _same(recorded, stack_dir(home)):
        return stack
    here = dataclasses.replace(stack, home=str(home), moved_from=stack.moved_from or stack.home)
    if (recorded / "stack.json").exists():
        # A copy: the processes, and the id by which they are found, are the other home's.
        return dataclasses.replace(here, id=uuid.uuid4().hex, supervisor=None, services={})
    return here


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def write(stack: Stack) -> None:
    """Replace the record; only its owner can read it."""
    with _lock(stack.folder):
        _write(stack)


def update(home: Path, **changes: Any) -> None:
    """Change some fields of the record; the others keep what other processes wrote."""
    with _lock(stack_dir(home)):
        stack = read(home)
        if stack is not None:
            _write(dataclasses.replace(stack, **changes))


def _lock(folder: Path) -> FileLock:
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "stack.json.lock")


def _write(stack: Stack) -> None:
    content = json.dumps(dataclasses.asdict(stack), indent=2)
    write_whole(stack.folder / "stack.json", content, private=True)
