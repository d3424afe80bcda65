"""Collecting a batch of videos: lease, pace, fetch, verify, rename, record.

Everything that matters is in the ledger before it is reported, and a file gets its final name
only after it was decoded to its end. So a collector may be killed at any moment: what it had
finished is known, what was partial is gone on with, what was renamed and not yet recorded is
recognised, and its leases end with its process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coinml.collection.batch import Batch
from coinml.collection.download import FetchOptions, source_url
from coinml.collection.outcomes import (
    BatchReport,
    BatchUnfinishedError,
    SourcePausedError,
    VideoOutcome,
)
from coinml.collection.pacing import Pacer, Pauses, source_name
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
    source: str,
    folder: Path | str,
    run_id: str,
    options: FetchOptions | None = None,
    max_wait_s: float = 60.0,
    rate_per_hour: float | None = None,
    burst: int = 8,
    retry_now: bool | Collection[Fault | str] = False,
    pauses: Pauses | None = None,
    min_free_bytes: int = 100 << 20,
    verify: Verify | None = None,
    duration_tolerance: float | None = None,
    on_video: Callable[[VideoOutcome], None] | None = None,
) -> BatchReport:
    """Download, verify and record each of these videos that is still due.

    Calling it again with the same ids and `run_id` redoes only what is not yet done, and asks
    no video more often in a run than `faults.POLICY` allows.

    Args:
        ledger_url: Where the ledger is.
        dataset: Its name there.
        ids: Videos of it.
        source: URL template with `{id}`.
        folder: Where the files go, as `<id>.<ext>`.
        run_id: Names the run whose attempts are counted together.
        options: How to fetch.
        max_wait_s: How long pauses of the source are waited out, in all.
        rate_per_hour: Videos an hour over all collectors of this source; None: no limit.
        burst: How many may go at once after a quiet time.
        retry_now: Ask for what failed before, whether its time has come or not; or only for
            what stands under these faults.
        pauses: How long the source is left alone when it does not say.
        min_free_bytes: Stop when the disk has less room than this.
        verify: Full decode of a file; default: `coinml.media` in killable processes.
        duration_tolerance: By which part a file's length may differ from the annotated one
            before it counts as corrupt; None: by any.
        on_video: Called for each video as soon as its outcome is recorded.

    Raises:
        BatchUnfinishedError: All were tried, and some may be tried again in this run.
        SourcePausedError: The source is paused for longer than `max_wait_s`.
        LocalError: This machine is at fault; no video is blamed.
        InvalidInputError: A bad source, id or cookies file.
    """
    folder = Path(folder).absolute()
    for video_id in ids:
        source_url(source, video_id)
    options = options or FetchOptions()
    ledger = Ledger.shared(ledger_url)
    owner = new_owner()
    pacer = Pacer(
        ledger.database,
        source_name(source),
        owner=owner,
        rate_per_hour=rate_per_hour,
        burst=burst,
        pauses=pauses,
    )
    batch = Batch(
        ledger=ledger,
        dataset=dataset,
        source=source,
        run_id=run_id,
        options=options,
        credentials=options.credentials(),
        owner=owner,
        pacer=pacer,
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
    source: str,
    folder: Path | str,
    run_id: str,
    **settings: Any,
) -> BatchReport:
    """`collect_batch`, called until nothing is left that may be tried again in this run.

    This is what a caller without a retry machinery of its own wants; arguments and errors are
    those of `collect_batch`, but for `BatchUnfinishedError`.
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
            remaining = err.report.again
            time.sleep(err.delay_s)
            continue
        return replace(
            report,
            downloaded=downloaded + report.downloaded,
            faults={**faults, **report.faults},
            waited_s=waited_s + report.waited_s,
        )
