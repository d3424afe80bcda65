"""Flow `collect`: download what is available, and record why the rest is not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from prefect import flow
from prefect.runtime import flow_run

from coinml.collection.collector import SourcePausedError
from coinml.collection.options import CollectOptions
from coinml.collection.sources import as_sources
from coinml.collection.whole_dataset import rounds
from coinml.errors import LocalError, SourceBlockedError, TransientError
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from tasks.counting import collect_report
from tasks.download import adopt_in_place, download_batch, find_due, sources_for, still_open
from tasks.events import announce_collected
from tasks.limits import batch_slots
from tasks.outcomes import completed
from tasks.reporting import report_attrition
from tasks.submitting import submit_all
from tasks.summaries import CollectReport
from tasks.threads import threads
from tasks.watching import progress_shown, rename_run


@flow(
    name="collect",
    flow_run_name="collect {selection.title}",
    task_runner=threads(Settings().parallel),
)
def collect(selection: Selection, collection: CollectOptions = CollectOptions()) -> CollectReport:
    """Download the videos that are due; the files of a folder are verified where they are.

    A video that is not available does not fail the flow: the report says what is still due. Emits
    `coinml.collected` if there are new videos.

    Args:
        selection: Which videos.
        collection: Which of them are tried in this run, and how.

    Raises:
        InvalidInputError: A source is neither a URL template nor a folder or bucket.
        LocalError: This machine is at fault; no video is blamed.
    """
    dataset = selection.load(Settings().data_dir)
    due = find_due(dataset, collection)
    blocked_until = None
    with progress_shown(dataset.name), progress.stage("collect", len(due)):
        if selection.is_folder:
            adopt_in_place(selection)
        elif due:
            with sources_for(selection, collection.sources) as sources:
                blocked_until = _download_all(dataset.name, due, collection, sources)
    report_attrition(dataset.name)
    report = collect_report(dataset, tried=due, blocked_until=blocked_until)
    announce_collected(selection, report, collection.source)
    name = f"collect {selection.title}"
    rename_run(name, f"{name} {report.yielded}")
    return completed(report, message=report.outcome)


def _download_all(
    dataset: str, ids: Sequence[str], options: CollectOptions, sources: tuple[str, ...]
) -> datetime | None:
    """Ask the sources one after the other; why a video is missing is in the ledger.

    Returns:
        When a source that refuses everyone for longer than `max_wait_s` may be tried again.

    Raises:
        LocalError: A batch found this machine at fault.
    """
    blocked_until = None
    for ask in rounds(sources):
        run_id = str(flow_run.id)
        left = still_open(dataset, ids, options, sources=sources, ask=ask, run_id=run_id)
        if left:
            blocked_until = _download(dataset, left, options, sources=sources, ask=ask)
    return blocked_until


def _download(
    dataset: str,
    ids: Sequence[str],
    options: CollectOptions,
    *,
    sources: tuple[str, ...],
    ask: str | None,
) -> datetime | None:
    """Run all batches of a pass.

    Returns:
        When the source may be tried again, if it refuses everyone for longer than `max_wait_s`.

    Raises:
        LocalError: A batch found this machine at fault.
    """
    size = options.batch_size
    place = f" at {as_sources([ask])[0].name}" if ask else ""
    batches = [list(ids[start : start + size]) for start in range(0, len(ids), size)]
    with batch_slots(min(Settings().parallel, len(batches))) as slots:
        _, errors = submit_all(
            download_batch,
            [
                {
                    "dataset": dataset,
                    "ids": batch,
                    "batch": f"{number}/{len(batches)}{place}",
                    "sources": sources,
                    "ask": ask,
                    "run_id": str(flow_run.id),
                    "options": options,
                }
                for number, batch in enumerate(batches, start=1)
            ],
            at_once=slots,
        )
    # A faulty machine would fail every video, so it fails the run. A failed video or source is
    # already recorded in the ledger and does not.
    for error in sorted(errors, key=lambda error: not isinstance(error, LocalError)):
        if not isinstance(error, TransientError | SourceBlockedError):
            raise error
    pauses = [error.blocked_until for error in errors if isinstance(error, SourcePausedError)]
    return max((pause for pause in pauses if pause is not None), default=None)
