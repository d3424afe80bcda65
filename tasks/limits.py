"""Limits on what runs at once: batches of all machines of a server, and one run per device."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

from coinml.runtime import progress

BATCHES = "coinml-batches"
"""Name of the global concurrency limit; `prefect gcl update coinml-batches --limit 8` sets it."""

MOST_BATCHES = 32
"""The limit that it is created with."""

_LEASE_S = 60.0
"""The slots of a killed run are free again after this."""

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def batch_slots(wanted: int) -> Iterator[int]:
    """Within it, the yielded number of batches may run at once: `wanted`, at most the limit.

    A run takes its slots once, and waits until they are free. Taking one per batch with a tag limit
    cost a third of a second per batch, even where no batch had to wait.
    """
    with get_client(sync_client=True) as client:
        slots = max(1, min(wanted, ceiling(client).at_once))
    with contextlib.ExitStack() as taken:
        taken.enter_context(concurrency(BATCHES, occupy=slots, lease_duration=_LEASE_S))
        yield slots
        try:
            taken.close()
        except httpx.HTTPError as err:
            # The batches are done, and the lease ends by itself if the server does not answer.
            logger.warning("the slots of %s could not be released: %s", BATCHES, err)


@contextlib.contextmanager
def reserved_devices(folder: Path, devices: Sequence[str]) -> Iterator[None]:
    """Within it, no other run of this machine embeds on these devices.

    An encoder fills its device; a second one would only wait. Lock files are used rather than
    Prefect's tag limits: those cost a third of a second per task, count the devices of all machines
    together, and stay taken when a run is killed.

    Args:
        folder: Folder of the lock files.
        devices: As `runtime.devices.find_devices` returns them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted({device.replace(":", "-") for device in devices})
    locks = [FileLock(folder / f"{name}.lock") for name in names]
    with contextlib.ExitStack() as stack:
        for lock in locks:
            try:
                lock.acquire(blocking=False)
            except Timeout:
                with progress.stage(f"wait for {Path(lock.lock_file).stem}"):
                    lock.acquire()
            stack.callback(lock.release)
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """A server's limit on batches.

    Attributes:
        at_once: Number of batches of all machines that may run at once.
        made: Whether it was created just now.
    """

    at_once: int
    made: bool


def ceiling(client: SyncPrefectClient) -> Ceiling:
    """The server's limit on batches; created if it does not exist."""
    with contextlib.suppress(ObjectNotFound):
        found = client.read_global_concurrency_limit_by_name(BATCHES)
        return Ceiling(at_once=found.limit, made=False)
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=BATCHES, limit=MOST_BATCHES)
        )
    return Ceiling(at_once=MOST_BATCHES, made=True)
