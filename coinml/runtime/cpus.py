"""How many processors there are for the work of this process."""

from __future__ import annotations

import os


def processors() -> int:
    """Number of processors that this process may use."""
    return len(processor_numbers()) or os.cpu_count() or 1


def processor_numbers() -> list[int]:
    """Which ones those are, ascending; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
