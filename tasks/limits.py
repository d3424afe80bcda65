"""What may run at once: batches over all machines of a Prefect server, and one run a device."""

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
"""What it is made with where it is not there."""

_LEASE_S = 60.0
"""The slots of a run that was killed are free again after this."""


logger = logging.getLogger(__name__)


@contextlib.contextmanager
def batch_slots(wanted: int) -> Iterator[int]:
    """Within it, so many batches may run at once as are yielded: `wanted`, or the limit.

    A run takes its slots once, and waits until they are free. To take one for each batch, by a
    tag limit, was measured at a third of a second a batch even where nobody had to wait.
    """
    with get_client(sync_client=True) as client:
        slots = max(1, min(wanted, ceiling(client).at_once))
    with contextlib.ExitStack() as taken:
        taken.enter_context(concurrency(BATCHES, occupy=slots, lease_duration=_LEASE_S))
        yield slots
        try:
            taken.close()
        except httpx.HTTPError as err:
            # The batches are done. A server that is away for a moment frees the slots by itself.
            logger.warning("the slots of %s could not be given back: %s", BATCHES, err)


@contextlib.contextmanager
def reserved_devices(folder: Path, devices: Sequence[str]) -> Iterator[None]:
    """Within it, no other run of this machine embeds on these devices.

    An encoder fills its device, and a second would only wait for it. Files are locked and not
    Prefect's tags: those were measured at a third of a second a task, hold over machines that
    have devices of their own, and outlive a run that was killed.

    Args:
        folder: Where the files lie.
        devices: As `runtime.devices.find_devices` gives them.
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
    """The limit on batches that a server has.

    Attributes:
        at_once: Batches of all machines that may run at once.
        made: Whether the server had none until now.
    """

    at_once: int
    made: bool


def ceiling(client: SyncPrefectClient) -> Ceiling:
    """The server's limit on batches; it is made where it is not there."""
    with contextlib.suppress(ObjectNotFound):
        found = client.read_global_concurrency_limit_by_name(BATCHES)
        return Ceiling(at_once=found.limit, made=False)
    with contextlib.suppress(ObjectAlreadyExists):
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=BATCHES, limit=MOST_BATCHES)
        )
    return Ceiling(at_once=MOST_BATCHES, made=True)
