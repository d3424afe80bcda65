"""Whether the lease of a video still holds."""

from __future__ import annotations

from coinml.ledger.foreign_values import finite
from coinml.runtime.process_identity import is_dead, is_here

LONGEST_S = 3600.0
"""No lease is longer; a collector renews its leases far more often."""


def is_held(owner: str, until: object, *, now: float) -> bool:
    """Whether a lease still holds.

    A lease that ends later than any may was given by a clock that was ahead. It holds only if its
    process is seen to live.

    Args:
        owner: Who holds it.
        until: When it ends, in seconds since the epoch, as the database has it.
        now: The present time.
    """
    end = finite(until) or 0.0
    if end <= now or is_dead(owner):
        return False
    return end <= now + LONGEST_S or is_here(owner)
