"""Embeds shards in other processes: one per device of this machine, or a Dask cluster's workers.

The only importer of distributed. Its scheduler gives shards to free workers, and the shards of a
process that died to another one, which skips what is already in the set.

A worker process needs this library and the same folders, but not the ledger.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from typing import Any

import dask
import distributed
from distributed import Client, Nanny, Scheduler, SpecCluster, WorkerPlugin, get_worker
from distributed.scheduler import KilledWorker
from distributed.security import Security

from coinml.embedding import shards
from coinml.embedding.report import EmbedReport, Progress
from coinml.embedding.shards import Shard
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.cpus import cpu_ids
from coinml.runtime.progress import StoppedError
from coinml.runtime.settings import Settings

logger = logging.getLogger(__name__)

HOST = "tls://127.0.0.1"
CONNECT_S = 10.0
FIRST_WORKER_S = 30.0
NO_WORKER_S = 120.0
_POLL_S = 1.0
_STOP_S = 60.0


class ClusterEmbedder:
    """Embeds shards on the workers of a Dask cluster; see `connect` and `local_cluster`.

    Args:
        client: Connected to the cluster's scheduler.
        name: The cluster's name in messages.
    """

    max_in_flight = shards.MAX_SHARDS_IN_FLIGHT

    def __init__(self, client: Client, *, name: str) -> None:
        self._client = client
        self._name = name
        self._topic = f"coinml-{uuid.uuid4().hex}"
        self._states: dict[str, _ShardState] = {}
        self._workers_seen = time.monotonic()
        client.subscribe_topic(self._topic, self._on_event)

    @property
    def workers(self) -> int:
        """Number of shards that are embedded at once."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def embed(self, shard: Shard, progress: Progress | None = None) -> EmbedReport:
        """Have a worker embed the jobs of a shard that are not yet in its set; thread-safe.

        If `progress` raises, the worker writes the vectors it has and stops.

        Raises:
            InvalidInputError: The encoder is not on the worker, or differs from the set's.
            LocalError: The cluster is gone, its workers die, or a worker fails.
            TransientError: The hub does not answer.
        """
        key = f"embed_shard-{uuid.uuid4().hex}"
        state = self._states[key] = _ShardState(total=len(shard.jobs))
        future = self._client.submit(_embed_on_worker, self._topic, key, shard, key=key, pure=False)
        future.add_done_callback(lambda _: state.changed.set())
        try:
            while not future.done():
                if progress is not None:
                    progress(state.done, state.total)
                self._check_workers()
                state.changed.wait(_POLL_S)
                state.changed.clear()
            report = self._result_of(future)
            if progress is not None:
                progress(state.total, state.total)
        except BaseException:
            with contextlib.suppress(Exception):
                future.cancel()
            if state.started.is_set():
                state.stopped.wait(_STOP_S)
            raise
        else:
            return report
        finally:
            del self._states[key]

    def _on_event(self, event: tuple[float, tuple[str, int | None, int]]) -> None:
        key, done, total = event[1]
        if (state := self._states.get(key)) is None:
            return
        if done is None:
            state.stopped.set()
        else:
            state.started.set()
            state.stopped.clear()
            state.done, state.total = done, total
        state.changed.set()

    def _check_workers(self) -> None:
        """Raise if the cluster has had no worker for `NO_WORKER_S`."""
        now = time.monotonic()
        if now - self._workers_seen < _POLL_S * 5:
            return
        try:
            has_workers = bool(self._client.nthreads())
        except (OSError, TimeoutError):
            return  # The scheduler is gone: the future fails with the reason.
        if has_workers:
            self._workers_seen = now
        elif now - self._workers_seen > NO_WORKER_S:
            raise LocalError(f"{self._name} has had no worker for {NO_WORKER_S:.0f} s")

    def _result_of(self, future: Any) -> EmbedReport:
        try:
            report: EmbedReport = future.result(timeout=CONNECT_S)
        except KilledWorker as err:
            raise LocalError(
                f"{self._name}: several workers in turn died while they embedded the same shard, "
                f"the last was {err.last_worker.address}"
            ) from err
        except (CancelledError, distributed.CancelledError, OSError, TimeoutError) as err:
            raise LocalError(f"{self._name} is gone; the vectors it wrote are kept") from err
        except ImportError as err:
            raise LocalError(f"{self._name}: a worker has another coinml: {err}") from err
        return report


class _ShardState:
    """What the cluster has reported about a shard."""

    def __init__(self, *, total: int) -> None:
        self.done = 0
        self.total = total
        self.started = threading.Event()
        self.stopped = threading.Event()
        self.changed = threading.Event()


def _embed_on_worker(topic: str, key: str, shard: Shard) -> EmbedReport:
    """Embed a shard in the worker that runs this, and report progress as Dask events."""
    worker = get_worker()
    logging.getLogger("coinml").setLevel(logging.INFO)

    def report_progress(done: int, total: int) -> None:
        worker.log_event(topic, (key, done, total))
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise StoppedError("the task that embeds this shard was cancelled")

    report_progress(0, len(shard.jobs))
    try:
        return shards.embed_shard(shard, device=Settings().device, progress=report_progress)
    except (LocalError, InvalidInputError) as err:
        where = f"Dask worker {worker.address} on {socket.gethostname()}"
        raise type(err)(f"{where}: {err}") from err
    finally:
        worker.log_event(topic, (key, None, 0))


@contextlib.contextmanager
def connect(address: str) -> Iterator[ClusterEmbedder]:
    """The workers of a running Dask cluster.

    Args:
        address: The scheduler's address, such as `tcp://10.0.0.5:8786`.

    Raises:
        InvalidInputError: The address is malformed.
        LocalError: No scheduler answers there, or it has no workers.
    """
    name = f"the Dask cluster at {address}"
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except ValueError as err:
        raise InvalidInputError(f"address {address!r}: expected tcp://HOST:PORT ({err})") from err
    except (OSError, TimeoutError) as err:
        raise LocalError(
            f"no Dask scheduler answers at {address} within {CONNECT_S:.0f} s; "
            "`dask scheduler` starts one"
        ) from err
    with _dask_logs_redirected(), client:
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_S)
        except TimeoutError as err:
            raise LocalError(
                f"{name} has no workers; `dask worker {address} --nthreads 1` starts one"
            ) from err
        with _worker_logs_forwarded(client):
            yield ClusterEmbedder(client, name=name)


@contextlib.contextmanager
def local_cluster(devices: Sequence[str]) -> Iterator[ClusterEmbedder]:
    """A process for each device of this machine; a process that dies is restarted.

    A Dask scheduler or worker runs whatever code it is sent, and other users of the machine reach
    its port. So each connection is TLS with a certificate on both sides, which is made for this
    cluster and never leaves its processes. No page is served by HTTP.

    Args:
        devices: As `runtime.devices.find_devices` gives them.

    Raises:
        LocalError: The processes do not start.
    """
    # A worker process prints Dask's start-up log, which this process cannot redirect.
    config = {
        "distributed.nanny.pre-spawn-environ": {"DASK_LOGGING__DISTRIBUTED": "critical"},
        # The HTTP servers, which Dask starts in any case, would tell everybody tasks and logs.
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    security = Security.temporary()
    scheduler = {
        "cls": Scheduler,
        "options": {
            "host": HOST,
            "port": 0,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
            "security": security,
        },
    }
    names = ", ".join(devices)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_dask_logs_redirected())
        stack.enter_context(dask.config.set(config))
        try:
            cluster = stack.enter_context(
                SpecCluster(
                    workers=_worker_specs(devices, security),
                    scheduler=scheduler,
                    security=security,
                    silence_logs=False,
                )
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
            client.wait_for_workers(len(devices), timeout=FIRST_WORKER_S)
        except (OSError, RuntimeError, TimeoutError) as err:
            raise LocalError(f"the processes for {names} do not start: {err}") from err
        stack.enter_context(_worker_logs_forwarded(client))
        yield ClusterEmbedder(client, name=f"the processes for {names}")


def _worker_specs(devices: Sequence[str], security: Security) -> dict[int, dict[str, Any]]:
    """Dask's specification of a single-threaded worker process for each device."""
    cpus = cpu_ids()
    return {
        index: {
            "cls": Nanny,
            "options": {
                "host": HOST,
                "security": security,
                "nthreads": 1,
                "memory_limit": 0,
                "dashboard": False,
                "env": shards.device_environment(device),
                "plugins": [_WorkerSetup(_slice_of(cpus, index, len(devices)))],
            },
        }
        for index, device in enumerate(devices)
    }


def _slice_of(cpus: Sequence[int], index: int, parts: int) -> Sequence[int]:
    """One of `parts` equal slices; adjacent CPUs stay together, since they often share memory."""
    return cpus[index * len(cpus) // parts : (index + 1) * len(cpus) // parts]


class _WorkerSetup(WorkerPlugin):
    """Pins the worker's CPU affinity and ignores SIGINT.

    Args:
        cpus: The CPUs for the worker and its decoding processes; if empty, all.
    """

    name = "coinml-worker-setup"

    def __init__(self, cpus: Sequence[int]) -> None:
        self._cpus = tuple(cpus)

    def setup(self, worker: Any) -> None:
        """Called in the worker process when it starts."""
        # Ctrl-C reaches the whole process group; the main process stops the workers in order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._cpus:
            os.sched_setaffinity(0, self._cpus)


@contextlib.contextmanager
def _worker_logs_forwarded(client: Client) -> Iterator[None]:
    """Forward the workers' log records of coinml to this process."""
    client.forward_logging("coinml", level=logging.INFO)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            client.unforward_logging("coinml")


@contextlib.contextmanager
def _dask_logs_redirected() -> Iterator[None]:
    """Send Dask's warnings to this process's log instead of stderr.

    Dask prints alarming messages to stderr, also when a cluster is closed in order.
    """
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in ("distributed", "bokeh", "tornado"):
            dask_logger = logging.getLogger(name)
            dask_logger.handlers.clear()
            dask_logger.propagate = True
            dask_logger.setLevel(logging.WARNING)
    yield
