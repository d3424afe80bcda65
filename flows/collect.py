"""Flow `collect`: get the videos that can still be had, and record what became of the rest."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from prefect import flow
from prefect.futures import PrefectFuture, wait
from prefect.runtime import flow_run

from coinml.collection.collector import BatchReport, SourcePausedError
from coinml.collection.download import MAX_HEIGHT
from coinml.data.records import Dataset
from coinml.data.splits import unit_hash
from coinml.errors import InvalidInputError, LocalError, SourceBlockedError, TransientError
from coinml.faults.classification import Fault
from coinml.ledger import DOWNLOADED, PENDING, Ledger, LedgerRow
from coinml.runtime import progress
from coinml.runtime.settings import YOUTUBE, Settings
from coinml.selection import Selection, miniature_dir
from tasks.download import adopt_in_place, download_batch, fetch_options
from tasks.events import announce_collected
from tasks.limits import batch_slots
from tasks.outcomes import completed
from tasks.reporting import report_attrition
from tasks.summaries import CollectReport
from tasks.threads import threads
from tasks.watching import progress_shown, rename_run


@flow(
    name="collect",
    flow_run_name="collect {selection.title}",
    task_runner=threads(Settings().parallel),
)
def collect(
    selection: Selection,
    source: str | None = None,
    budget: int | None = None,
    batch_size: int = 20,
    max_wait_s: float = 60.0,
    max_height: int = MAX_HEIGHT,
    only: tuple[str, ...] = (),
    retry_now: bool = False,
    reprobe: bool = False,
) -> CollectReport:
    """Download what is due of a selection; folders are adopted where they lie.

    What cannot be had now is no failure of the flow: the outcome says what is still due. Who waits
    for new videos is told by the event `coinml.collected`, if there are any.

    Args:
        selection: Which videos.
        source: URL template with `{id}`; YouTube, and for `mini` a host of its own.
        budget: At most so many videos in this run.
        batch_size: Videos a task.
        max_wait_s: A longer pause of the source ends the run instead of being waited out.
        max_height: Rows of the picture at most.
        only: Ask only for what stands under these faults ("pending" is allowed among them).
        retry_now: Ask for what failed before, whether its time has come or not; for what is
            gone only if `only` names it.
        reprobe: Ask for what is gone, whether its time has come or not.

    Raises:
        InvalidInputError: A fault that does not exist, or a source that is none.
        LocalError: This machine is at fault; no video is blamed.
    """
    anyway = _whatever_their_time(only, retry_now=retry_now, reprobe=reprobe)
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    with Ledger(settings.ledger_url) as ledger:
        ledger.register(dataset)
        ids = _due(ledger, dataset, settings, only=only, retry_now=anyway)[:budget]
        blocked_until = None
        with progress_shown(dataset.name), progress.stage("collect", len(ids)):
            if selection.is_folder:
                adopt_in_place(selection)
            elif ids:
                with _source(selection, source, settings) as url:
                    blocked_until = _download(
                        dataset,
                        ids,
                        url,
                        batch_size=batch_size,
                        max_wait_s=max_wait_s,
                        max_height=max_height,
                        retry_now=anyway,
                    )
        report_attrition(dataset.name)
        report = _report(ledger, dataset, asked=ids, blocked_until=blocked_until)
    announce_collected(selection, report, source)
    name = f"collect {selection.title}"
    rename_run(name, f"{name} {report.yielded}")
    return completed(report, message=report.outcome)


def _whatever_their_time(only: Sequence[str], *, retry_now: bool, reprobe: bool) -> tuple[str, ...]:
    """The faults under which videos are asked for before their time.

    Raises:
        InvalidInputError: `only` names something else than a fault.
    """
    unknown = sorted(set(only) - {PENDING, *Fault})
    if unknown:
        raise InvalidInputError(f"only {', '.join(unknown)}: of {', '.join([PENDING, *Fault])}")
    asked_anyway = set(only or set(Fault) - {Fault.GONE}) if retry_now else set()
    return tuple(sorted(asked_anyway | ({Fault.GONE} if reprobe else set())))


def _due(
    ledger: Ledger,
    dataset: Dataset,
    settings: Settings,
    *,
    only: Sequence[str],
    retry_now: Sequence[str],
) -> list[str]:
    """What to ask for now, in an order that has every class early on.

    Annotations stand class by class; a budget would else spend itself on the first few.
    """
    ids = ledger.due(
        dataset.name,
        ids=[video.video_id for video in dataset.videos],
        credentials=fetch_options(settings).credentials(),
        faults=only or None,
        retry_now=retry_now,
    )
    return sorted(ids, key=unit_hash)


@contextmanager
def _source(selection: Selection, source: str | None, settings: Settings) -> Iterator[str]:
    if source is not None or not selection.is_mini:
        yield source or YOUTUBE
        return
    from coinml.miniature.fault_plan import fault_plan
    from coinml.miniature.host import FlakyHost

    folder = miniature_dir(settings.data_dir)
    with FlakyHost(folder / "videos", fault_plan(folder / "COIN.json")) as host:
        yield host.url + "/{id}.mp4"


def _download(
    dataset: Dataset, ids: Sequence[str], source: str, *, batch_size: int, **how: Any
) -> datetime | None:
    """Run the batches to their ends; what they could not get is in the ledger.

    Returns:
        When the source may be asked again, if it refuses everyone for longer than one waits.

    Raises:
        LocalError: A batch found this machine at fault.
    """
    batches = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    futures: list[PrefectFuture[BatchReport]] = []
    with batch_slots(min(Settings().parallel, len(batches))) as slots:
        room = threading.BoundedSemaphore(slots)
        for number, batch in enumerate(batches, start=1):
            room.acquire()
            future = download_batch.submit(
                dataset.name,
                list(batch),
                batch=f"{number}/{len(batches)}",
                source=source,
                run_id=str(flow_run.id),
                **how,
            )
            future.add_done_callback(lambda _: room.release())
            futures.append(future)
        wait(futures)
    ends: list[BatchReport | BaseException] = [
        future.result(raise_on_failure=False) for future in futures
    ]
    errors = [end for end in ends if isinstance(end, BaseException)]
    # A machine that is at fault would fail everything; a video or a source that is, has
    # been recorded as such and is no failure of the run.
    for error in sorted(errors, key=lambda error: not isinstance(error, LocalError)):
        if not isinstance(error, TransientError | SourceBlockedError):
            raise error
    pauses = [error.blocked_until for error in errors if isinstance(error, SourcePausedError)]
    return max((pause for pause in pauses if pause is not None), default=None)


def _report(
    ledger: Ledger, dataset: Dataset, *, asked: Sequence[str], blocked_until: datetime | None
) -> CollectReport:
    selected = {video.video_id for video in dataset.videos}
    rows = [row for row in ledger.rows(dataset.name) if row.video_id in selected]
    here = [row for row in rows if row.state == DOWNLOADED]
    return CollectReport(
        dataset=dataset.name,
        total=len(rows),
        downloaded=len(here),
        fetched=len({row.video_id for row in here} & set(asked)),
        asked=len(asked),
        faults=dict(Counter(row.state for row in rows if row.state in set(Fault))),
        still_due=sum(_still_due(row) for row in rows),
        blocked_until=blocked_until,
    )


def _still_due(row: LedgerRow) -> bool:
    """Whether a later run will ask for it by itself, before weeks have passed."""
    if row.state in (DOWNLOADED, Fault.GONE):
        return False
    return row.state == PENDING or row.next_attempt_at is not None
