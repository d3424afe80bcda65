"""Shards embedded by other processes: one a device of this machine, or a Dask cluster's workers.

The only importer of distributed, whose scheduler deals shards out to whoever is free and gives
those of a process that died to another. The set says what that one had already written.

A worker process needs this library and the same folders, and nothing else of the project.
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

from coinml.embedding import shards
from coinml.embedding.report import EmbedReport, Progress
from coinml.embedding.shards import Shard
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.cpus import cpu_ids
from coinml.runtime.progress import StoppedError
from coinml.runtime.settings import Settings

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
FIRST_WORKER_S = 30.0
NO_WORKER_S = 120.0
_POLL_S = 1.0
_ENDING_S = 60.0


class Cluster:
    """Embeds shards on the workers of a Dask cluster; see `connect` and `local_cluster`.

    Args:
        client: Connected to its scheduler.
        name: What messages call it.
    """

    in_hand = shards.SHARDS_IN_HAND

    def __init__(self, client: Client, *, name: str) -> None:
        self._client = client
        self._name = name
        self._topic = f"coinml-{uuid.uuid4().hex}"
        self._news: dict[str, _News] = {}
        self._workers_seen = time.monotonic()
        client.subscribe_topic(self._topic, self._hear)

    @property
    def workers(self) -> int:
        """Number of shards that are embedded at once."""
        threads: dict[str, int] = self._client.nthreads()
        return max(1, sum(threads.values()))

    def embed(self, shard: Shard, progress: Progress | None = None) -> EmbedReport:
        """Have a worker embed what of a shard is not yet in its set; threads may call it.

        If `progress` raises, the worker writes what it has and leaves the rest.

        Raises:
            InvalidInputError: The encoder is not on the worker, or is not the set's.
            LocalError: The cluster is gone, or its workers die, or are not fit for the work.
            TransientError: The hub does not answer.
        """
        key = f"embed_shard-{uuid.uuid4().hex}"
        news = self._news[key] = _News(total=len(shard.jobs))
        future = self._client.submit(_embed_here, self._topic, key, shard, key=key, pure=False)
        future.add_done_callback(lambda _: news.changed.set())
        try:
            while not future.done():
                if progress is not None:
                    progress(news.done, news.total)
                self._look_for_workers()
                news.changed.wait(_POLL_S)
                news.changed.clear()
            report = self._result_of(future)
            if progress is not None:
                progress(news.total, news.total)
        except BaseException:
            with contextlib.suppress(Exception):
                future.cancel()
            if news.begun.is_set():
                news.ended.wait(_ENDING_S)
            raise
        else:
            return report
        finally:
            del self._news[key]

    def _hear(self, event: tuple[float, tuple[str, int | None, int]]) -> None:
        key, done, total = event[1]
        if (news := self._news.get(key)) is None:
            return
        if done is None:
            news.ended.set()
        else:
            news.begun.set()
            news.ended.clear()
            news.done, news.total = done, total
        news.changed.set()

    def _look_for_workers(self) -> None:
        """Give up a cluster that has been empty for long."""
        now = time.monotonic()
        if now - self._workers_seen < _POLL_S * 5:
            return
        try:
            there = bool(self._client.nthreads())
        except (OSError, TimeoutError):
            return  # The futures tell of it.
        if there:
            self._workers_seen = now
        elif now - self._workers_seen > NO_WORKER_S:
            raise LocalError(f"{self._name} has had no worker for {NO_WORKER_S:.0f} s")

    def _result_of(self, future: Any) -> EmbedReport:
        try:
            report: EmbedReport = future.result(timeout=CONNECT_S)
        except KilledWorker as err:
            raise LocalError(
                f"{self._name}: one process after another died over the same shard, "
                f"the last was {err.last_worker.address}"
            ) from err
        except (CancelledError, distributed.CancelledError, OSError, TimeoutError) as err:
            raise LocalError(f"{self._name} is gone: what it had done is kept") from err
        except ImportError as err:
            raise LocalError(f"{self._name}: a worker has not the same coinml: {err}") from err
        return report


class _News:
    """What the cluster has said of a shard."""

    def __init__(self, *, total: int) -> None:
        self.done = 0
        self.total = total
        self.begun = threading.Event()
        self.ended = threading.Event()
        self.changed = threading.Event()


def _embed_here(topic: str, key: str, shard: Shard) -> EmbedReport:
    """Embed a shard in the worker that this runs in, and tell how far it is."""
    worker = get_worker()
    logging.getLogger("coinml").setLevel(logging.INFO)

    def tell(done: int, total: int) -> None:
        worker.log_event(topic, (key, done, total))
        task = worker.state.tasks.get(key)
        if task is None or task.state == "cancelled":
            raise StoppedError("nobody waits for this shard any more")

    tell(0, len(shard.jobs))
    try:
        return shards.embed_shard(shard, device=Settings().device, progress=tell)
    except (LocalError, InvalidInputError) as err:
        where = f"Dask worker {worker.address} on {socket.gethostname()}"
        raise type(err)(f"{where}: {err}") from err
    finally:
        worker.log_event(topic, (key, None, 0))


@contextlib.contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """The workers of a Dask cluster that is there.

    Args:
        address: Its scheduler's, such as `tcp://10.0.0.5:8786`.

    Raises:
        InvalidInputError: That is no address.
        LocalError: Nothing answers there, it has no workers, or they have no coinml.
    """
    name = f"the Dask cluster at {address}"
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except ValueError as err:
        raise InvalidInputError(f"address {address!r}: say tcp://HOST:PORT ({err})") from err
    except (OSError, TimeoutError) as err:
        raise LocalError(
            f"no Dask scheduler answers at {address} within {CONNECT_S:.0f} s; "
            "`dask scheduler` starts one"
        ) from err
    with _in_the_log(), client:
        try:
            client.wait_for_workers(1, timeout=FIRST_WORKER_S)
        except TimeoutError as err:
            raise LocalError(
                f"{name} has no workers; `dask worker {address} --nthreads 1` starts one"
            ) from err
        with _logs_of(client):
            yield Cluster(client, name=name)


@contextlib.contextmanager
def local_cluster(devices: Sequence[str]) -> Iterator[Cluster]:
    """A process for each device of this machine; one that dies is started again.

    Args:
        devices: As `runtime.devices.find_devices` gives them.

    Raises:
        LocalError: The processes do not start.
    """
    numbers = cpu_ids()
    # A process prints its log from its start, which is for people who look after clusters.
    quiet = {"distributed.nanny.pre-spawn-environ": {"DASK_LOGGING__DISTRIBUTED": "critical"}}
    workers = {
        number: {
            "cls": Nanny,
            "options": {
                "host": "127.0.0.1",
                "nthreads": 1,
                "memory_limit": 0,
                "dashboard": False,
                "env": shards.device_environment(device),
                "plugins": [_Settle(_part(numbers, number, len(devices)))],
            },
        }
        for number, device in enumerate(devices)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False},
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(_in_the_log())
        stack.enter_context(dask.config.set(quiet))
        try:
            cluster = stack.enter_context(
                SpecCluster(workers=workers, scheduler=scheduler, silence_logs=False)
            )
            client = stack.enter_context(Client(cluster, set_as_default=False))
            client.wait_for_workers(len(devices), timeout=FIRST_WORKER_S)
        except (OSError, RuntimeError, TimeoutError) as err:
            raise LocalError(f"the processes for {', '.join(devices)} do not start: {err}") from err
        stack.enter_context(_logs_of(client))
        yield Cluster(client, name=f"the processes for {', '.join(devices)}")


def _part(processors: Sequence[int], number: int, parts: int) -> Sequence[int]:
    """One of `parts` even parts; neighbours stay together, since they often share memory."""
    return processors[number * len(processors) // parts : (number + 1) * len(processors) // parts]


class _Settle(WorkerPlugin):
    """Makes a process of ours at home on its part of this machine.

    Args:
        processors: The ones that it and its decoders may use; without any, all.
    """

    name = "coinml-settle"

    def __init__(self, processors: Sequence[int]) -> None:
        self._processors = tuple(processors)

    def setup(self, worker: Any) -> None:
        """Called in the process when it starts."""
        # Ctrl-C is for the command, which has the work ended in order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._processors:
            os.sched_setaffinity(0, self._processors)


@contextlib.contextmanager
def _logs_of(client: Client) -> Iterator[None]:
    """Have the workers' log records in this process's log."""
    client.forward_logging("coinml", level=logging.INFO)
    try:
        yield
    finally:
        with contextlib.suppress(Exception):
            client.unforward_logging("coinml")


@contextlib.contextmanager
def _in_the_log() -> Iterator[None]:
    """Send what distributed says to the log: it prints, at its end not least, what alarms."""
    for name in list(logging.root.manager.loggerDict):
        if name.split(".")[0] in ("distributed", "bokeh", "tornado"):
            chatty = logging.getLogger(name)
            chatty.handlers.clear()
            chatty.propagate = True
            chatty.setLevel(logging.WARNING)
    yield
