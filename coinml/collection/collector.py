"""Collecting a batch of videos: lease, rate limit, download, verify, rename, record.

A result is in the ledger before it is reported, and a file gets its final name only after a full
decode. So a collector may be killed at any moment: finished videos are recorded, partial
downloads are resumed, files renamed but not recorded are recognised, and leases end with the
process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coinml.collection.batch import Batch
from coinml.collection.download import FetchOptions
from coinml.collection.lane import Lane
from coinml.collection.outcomes import (
    BatchReport,
    BatchUnfinishedError,
    SourcePausedError,
    VideoOutcome,
)
from coinml.collection.pacing import Pace, Pacer
from coinml.collection.sources import Source, as_sources, check_folders
from coinml.collection.video_folder import Verify, VideoFolder
from coinml.faults.classification import Fault
from coinml.ledger import Ledger, new_owner

__all__ = [
    "BatchReport",
    "BatchUnfinishedError",
    "SourcePausedError",
    "VideoOutcome",
    "collect",
    "collect_batch",
]


def collect_batch(
    ledger_url: str,
    dataset: str,
    ids: Sequence[str],
    *,
    source: str | Sequence[str],
    folder: Path | str,
    run_id: str,
    ask: str | None = None,
    options: FetchOptions | None = None,
    pace: Pace | Callable[[Source], Pace] | None = None,
    max_wait_s: float = 60.0,
    retry_now: bool | Collection[Fault | str] = False,
    min_free_bytes: int = 100 << 20,
    verify: Verify | None = None,
    duration_tolerance: float | None = None,
    on_video: Callable[[VideoOutcome], None] | None = None,
) -> BatchReport:
    """Download, verify and record each of these videos that is still due.

    Calling it again with the same ids and `run_id` repeats only unfinished work, and a run tries
    no video more often than `faults.POLICY` allows.

    Args:
        ledger_url: SQLAlchemy URL of the ledger.
        dataset: Name of the dataset.
        ids: Videos of the dataset.
        source: URL template with `{id}`, or a folder or bucket of copies; or several, tried in
            this order for each video.
        folder: Where the files go, as `<id>.<ext>`.
        run_id: The run; its attempts are counted together.
        ask: Of several sources, ask only this one, once a video and without waiting for its
            pauses: a later call asks the others. Then no video counts as unfinished.
        options: How to download.
        pace: Rate limit and pauses after refusals, of every source or by source.
        max_wait_s: Total time to wait out pauses of the source, in seconds.
        retry_now: True: try failed videos before they are due; or only those with these faults.
        min_free_bytes: Stop when less disk space than this is free.
        verify: Full decode of a file; default: `coinml.media` in killable processes.
        duration_tolerance: Relative difference from the annotated length above which a file
            counts as corrupt; None: any length is accepted.
        on_video: Called for each video as soon as its outcome is recorded.

    Raises:
        BatchUnfinishedError: All were tried, and some may be tried again in this run.
        SourcePausedError: The source is paused for longer than `max_wait_s`.
        LocalError: This machine is at fault; no video is recorded as failed.
        InvalidInputError: A bad source, id, proxy or cookies file.
    """
    folder = Path(folder).absolute()
    sources = as_sources(source)
    if len(sources) == 1:
        # One of several may be a disk that has gone away since the run began.
        check_folders([sources[0].template])
    for one in sources:
        for video_id in ids:
            one.url(video_id)
    options = options or FetchOptions()
    ledger = Ledger.shared(ledger_url)
    owner = new_owner()
    batch = Batch(
        ledger=ledger,
        dataset=dataset,
        lanes=[
            Lane(
                source=one,
                pacer=Pacer(
                    ledger.database,
                    one.name,
                    owner=owner,
                    pace=pace(one) if callable(pace) else pace,
                ),
                options=replace(options, secrets=one.secrets),
                alone=len(sources) == 1,
            )
            for one in sources
        ],
        ask=ask,
        run_id=run_id,
        credentials=options.credentials(),
        owner=owner,
        folder=VideoFolder(folder, min_free_bytes=min_free_bytes),
        max_wait_s=max_wait_s,
        retry_now=retry_now,
        verify=verify,
        duration_tolerance=duration_tolerance,
        on_video=on_video,
    )
    return batch.run(ids)


def collect(
    ledger_url: str,
    dataset: str,
    ids: Sequence[str],
    *,
    source: str | Sequence[str],
    folder: Path | str,
    run_id: str,
    **settings: Any,
) -> BatchReport:
    """Call `collect_batch` until no video may be tried again in this run.

    For callers that do not retry by themselves. Arguments and errors are those of
    `collect_batch`, without `BatchUnfinishedError`.
    """
    downloaded: tuple[str, ...] = ()
    faults: dict[str, Fault] = {}
    waited_s = 0.0
    remaining = tuple(ids)
    while True:
        try:
            report = collect_batch(
                ledger_url,
                dataset,
                remaining,
                source=source,
                folder=folder,
                run_id=run_id,
                **settings,
            )
        except BatchUnfinishedError as err:
            downloaded += err.report.downloaded
            faults.update(err.report.faults)
            waited_s += err.report.waited_s
            remaining = err.report.again + err.report.untried
            time.sleep(err.delay_s)
            continue
        return replace(
            report,
            downloaded=downloaded + report.downloaded,
            faults={**faults, **report.faults},
            waited_s=waited_s + report.waited_s,
        )
