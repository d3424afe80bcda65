"""Flow `collect`: download what is available, and record why the rest is not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from prefect import flow
from prefect.runtime import flow_run

from coinml.collection.collector import SourcePausedError
from coinml.collection.options import CollectOptions
from coinml.collection.sources import as_sources, check_folders
from coinml.errors import LocalError, SourceBlockedError, TransientError
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from tasks.alerts import announce_disk, announcing_failures
from tasks.counting import collect_report
from tasks.download import adopt_in_place, download_batch, find_due, sources_for, still_open
from tasks.events import announce_collected
from tasks.health import judge_collection
from tasks.limits import batch_slots
from tasks.lost_events import emit_lost_events
from tasks.outcomes import completed
from tasks.reporting import report_attrition
from tasks.submitting import submit_all, submit_in_stages
from tasks.summaries import CollectReport
from tasks.threads import threads
from tasks.watching import progress_shown, rename_run


@announcing_failures
@flow(
    name="collect",
    flow_run_name="collect {selection.title}",
    task_runner=threads(Settings().parallel),
)
def collect(selection: Selection, collection: CollectOptions = CollectOptions()) -> CollectReport:
    """Download the videos that are due; the files of a folder are verified where they are.

    A video that is not available does not fail the flow: the report says what is still due. Emits
    `coinml.collected` if there are new videos, and `coinml.disk_low` if the disk begins to be low.
    A run of a deployment fails if its collection has been blocked or has stalled for a day.

    Args:
        selection: Which videos.
        collection: Which of them are tried in this run, and how.

    Raises:
        InvalidInputError: A source is neither a URL template nor a folder or bucket, or is a folder
            that is not there.
        LocalError: This machine is at fault; no video is blamed.
        SourceBlockedError: As `judge_collection`.
        TransientError: As `judge_collection`.
    """
    check_folders(collection.sources)
    dataset = selection.load(Settings().data_dir)
    due = find_due(dataset, collection)
    blocked_until = None
    with progress_shown(dataset.name), progress.stage("collect", len(due)):
        if selection.is_folder:
            adopt_in_place(selection)
        elif due:
            with sources_for(selection, collection.sources) as sources:
                blocked_until = _download(dataset.name, due, collection, sources)
    report_attrition(dataset.name)
    report = collect_report(dataset, tried=due, blocked_until=blocked_until)
    announce_collected(selection, report, collection.source)
    emit_lost_events()
    announce_disk()
    name = f"collect {selection.title}"
    rename_run(name, f"{name} {report.yielded}")
    judge_collection(dataset.name, selection, collection)
    return completed(report, message=report.outcome, idle=report.idle)


def _download(
    dataset: str, ids: Sequence[str], options: CollectOptions, sources: tuple[str, ...]
) -> datetime | None:
    """Run all batches; why a video is missing is in the ledger.

    Of several sources, each is first asked once for what those before it did not have, all at the
    same time, so that one that refuses, hangs or is slow delays no other. Then all are asked for
    the rest, with retries, and pauses are waited out.

    Returns:
        When a source that refuses everyone for longer than `max_wait_s` may be tried again.

    Raises:
        LocalError: A batch found this machine at fault.
    """
    run_id = str(flow_run.id)

    def open_at(ask: str | None, some: Sequence[str]) -> list[str]:
        return still_open(dataset, some, options, sources=sources, ask=ask, run_id=run_id)

    def call(ask: str | None, batch: list[str], name: str) -> dict[str, Any]:
        return {
            "dataset": dataset,
            "ids": batch,
            "batch": name,
            "sources": sources,
            "ask": ask,
            "run_id": run_id,
            "options": options,
        }

    if len(sources) > 1:
        names = {source.template: source.name for source in as_sources(sources)}
        with batch_slots(Settings().parallel) as slots:
            errors = submit_in_stages(
                download_batch,
                ids,
                stages=sources,
                wanted=open_at,
                call=lambda ask, batch: call(ask, batch, f"of {len(batch)} at {names[ask]}"),
                size=options.batch_size,
                at_once=slots,
            )
        _raise_fault_of_machine(errors)
        ids = open_at(None, ids)
        if not ids:
            return None
    size = options.batch_size
    batches = [list(ids[start : start + size]) for start in range(0, len(ids), size)]
    with batch_slots(min(Settings().parallel, len(batches))) as slots:
        _, errors = submit_all(
            download_batch,
            [
                call(None, batch, f"{number}/{len(batches)}")
                for number, batch in enumerate(batches, start=1)
            ],
            at_once=slots,
        )
    _raise_fault_of_machine(errors)
    pauses = [error.blocked_until for error in errors if isinstance(error, SourcePausedError)]
    return max((pause for pause in pauses if pause is not None), default=None)


def _raise_fault_of_machine(errors: Sequence[BaseException]) -> None:
    # A faulty machine would fail every video, so it fails the run. A failed video or source is
    # already recorded in the ledger and does not.
    for error in sorted(errors, key=lambda error: not isinstance(error, LocalError)):
        if not isinstance(error, TransientError | SourceBlockedError):
            raise error
