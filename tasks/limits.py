"""The ceiling on parallel batches over all machines that share a Prefect server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

BATCHES = "coinml-batches"
"""Name of the global concurrency limit; `prefect gcl update coinml-batches --limit 8` sets it."""

MOST_BATCHES = 32
"""What it is made with where it is not there."""

_LEASE_S = 60.0
"""The slots of a run that was killed are free again after this."""


@contextlib.contextmanager
def batch_slots(wanted: int) -> Iterator[int]:
    """Within it, so many batches may run at once as are yielded: `wanted`, or the limit.

    A run takes its slots once, and waits until they are free. To take one for each batch, by a
    tag limit, was measured at a third of a second a batch even where nobody had to wait.
    """
    slots = max(1, min(wanted, _limit()))
    with concurrency(BATCHES, occupy=slots, lease_duration=_LEASE_S):
        yield slots


def _limit() -> int:
    with get_client(sync_client=True) as client:
        try:
            return client.read_global_concurrency_limit_by_name(BATCHES).limit
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=BATCHES, limit=MOST_BATCHES)
                )
            return MOST_BATCHES
