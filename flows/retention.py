"""Flow `retention`: remove old runs and versions, what they left on the disk, and long logs."""

from __future__ import annotations

from prefect import flow

from coinml.upkeep.gc import GcReport
from coinml.upkeep.gc_options import GcOptions
from tasks.alerts import announcing_failures
from tasks.outcomes import completed
from tasks.upkeep import remove_garbage


@announcing_failures
@flow(name="retention", flow_run_name="retention")
def retention(options: GcOptions = GcOptions(), delete: bool = False) -> GcReport:
    """Remove what the home of the worker's machine needs no longer.

    Args:
        options: What is kept.
        delete: Whether to remove what is found; else it is only counted.

    Raises:
        LocalError: An embedding set cannot be reached.
    """
    report = remove_garbage(options, delete=delete)
    return completed(report, message=str(report), idle=not report.items)
