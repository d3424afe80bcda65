"""Flow `reprobe`: ask once more for what is gone."""

from __future__ import annotations

from prefect import flow

from coinml.collection.download import MAX_HEIGHT
from coinml.faults.classification import Fault
from coinml.selection import Selection
from flows.collect import collect
from tasks.events import announce_collected, ours
from tasks.outcomes import completed
from tasks.summaries import CollectReport
from tasks.watching import rename_run


@flow(name="reprobe", flow_run_name="reprobe {selection.title}")
def reprobe(
    selection: Selection,
    source: str | None = None,
    batch_size: int = 20,
    max_wait_s: float = 60.0,
    max_height: int = MAX_HEIGHT,
) -> CollectReport:
    """Ask for every video that is gone, whether its time has come or not; some come back.

    Args:
        selection: Which videos.
        source: URL template with `{id}`; YouTube, and for `mini` a host of its own.
        batch_size: Videos a download task.
        max_wait_s: A longer pause of the source ends the run.
        max_height: Rows of the picture at most.

    Raises:
        LocalError: This machine is at fault; no video is blamed.
    """
    # Without a budget: it would ask for the same ones every time.
    with ours():
        report = collect(
            selection,
            source=source,
            batch_size=batch_size,
            max_wait_s=max_wait_s,
            max_height=max_height,
            only=(Fault.GONE.value,),
            reprobe=True,
        )
    announce_collected(selection, report, source)
    name = f"reprobe {selection.title}"
    rename_run(name, f"{name} {report.yielded}")
    message = f"{report.asked} were asked for once more, {report.fetched} came back. {report}"
    return completed(report, message=message)
