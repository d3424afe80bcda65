"""Flow `reprobe`: try videos that are gone once more."""

from __future__ import annotations

from prefect import flow

from coinml.collection.options import CollectOptions, DownloadOptions
from coinml.faults.classification import Fault
from coinml.selection import Selection
from flows.collect import collect
from tasks.alerts import announcing_failures
from tasks.events import announce_collected, tagged
from tasks.outcomes import completed
from tasks.summaries import CollectReport
from tasks.watching import rename_run


@announcing_failures
@flow(name="reprobe", flow_run_name="reprobe {selection.title}")
def reprobe(selection: Selection, download: DownloadOptions = DownloadOptions()) -> CollectReport:
    """Try every video that is gone, before its next scheduled attempt; some come back.

    Args:
        selection: Which videos.
        download: How they are downloaded.

    Raises:
        LocalError: This machine is at fault; no video is blamed.
    """
    # No budget: with one, every run would try the same videos.
    gone = CollectOptions(**download.model_dump(), only=(Fault.GONE.value,), reprobe=True)
    with tagged():
        report = collect(selection, gone)
    announce_collected(selection, report, download.source)
    name = f"reprobe {selection.title}"
    rename_run(name, f"{name} {report.yielded}")
    message = f"{report.asked} were tried once more, {report.fetched} came back. {report}"
    return completed(report, message=message, idle=report.idle)
