"""The CPUs that this process may use."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Number of CPUs that this process may use, at least 1."""
    return len(cpu_ids()) or os.cpu_count() or 1


def cpu_ids() -> list[int]:
    """Their numbers, ascending; empty where the system has no CPU affinity."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
