"""Collecting what is due of a dataset in one call."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from pathlib import Path

from coinml.collection import adopt, collector
from coinml.collection.download import FetchOptions
from coinml.collection.options import CollectOptions
from coinml.collection.outcomes import VideoOutcome
from coinml.collection.pacing import Pace
from coinml.collection.video_folder import DURATION_TOLERANCE
from coinml.data.records import Dataset
from coinml.data.splits import unit_hash
from coinml.errors import InvalidInputError
from coinml.ledger import Ledger, Status
from coinml.runtime.addresses import is_loopback
from coinml.runtime.settings import YOUTUBE

log = logging.getLogger(__name__)

YOUTUBE_RATE = Pace(rate_per_hour=300)
"""About what YouTube allows a session, by yt-dlp's maintainers."""


def collect(
    dataset: Dataset,
    ledger: Ledger,
    *,
    folder: Path | str | None = None,
    options: CollectOptions | None = None,
    fetch_options: FetchOptions | None = None,
    pace: Pace | None = None,
    on_video: Callable[[VideoOutcome], None] | None = None,
) -> Status:
    """Download the videos that are due; the files of class folders are verified where they are.

    One video is downloaded at a time. Each outcome is in the ledger before the next video is
    tried, so a call after an interruption goes on from there.

    Args:
        dataset: As `load_dataset` returns it; new videos are added to the ledger.
        ledger: Where the outcomes are recorded.
        folder: Where downloads go, as `<id>.<ext>`; class folders need none.
        options: Which videos are tried, and from which source; by default all that are due, from
            YouTube.
        fetch_options: Cookies, proxy and bandwidth of the downloads.
        pace: How fast the source may be asked; by default 300 videos per hour, and without limit
            on loopback.
        on_video: Called for each downloaded or failed video as soon as it is recorded.

    Returns:
        Counts of the dataset's videos by state.

    Raises:
        InvalidInputError: A wrong source, id or cookies file, or no folder for downloads.
        SourcePausedError: The source refuses everyone for longer than `options.max_wait_s`.
        LocalError: This machine is at fault; no video is blamed.
    """
    ledger.register(dataset)
    if all(video.path is not None for video in dataset.videos):
        adopt.adopt_in_place(ledger, dataset)
        return ledger.status(dataset.name)
    if folder is None:
        raise InvalidInputError(f"{dataset.name}: no folder is given for its downloads")
    options = options or CollectOptions()
    fetch_options = fetch_options or FetchOptions(**options.limits())
    source = options.source or YOUTUBE
    local = is_loopback(source)
    run_id = uuid.uuid4().hex
    due = find_due(dataset, ledger, options, credentials=fetch_options.credentials())
    # In batches, so that other collectors may take the rest meanwhile.
    for start in range(0, len(due), options.batch_size):
        collector.collect(
            ledger.url,
            dataset.name,
            due[start : start + options.batch_size],
            source=source,
            folder=folder,
            run_id=run_id,
            options=fetch_options,
            pace=pace or (Pace() if local else YOUTUBE_RATE),
            max_wait_s=options.max_wait_s,
            retry_now=options.ignoring_schedule,
            # A local server's stand-ins may be shorter than the annotated videos.
            duration_tolerance=None if local else DURATION_TOLERANCE,
            on_video=on_video,
        )
    return ledger.status(dataset.name)


def find_due(
    dataset: Dataset, ledger: Ledger, options: CollectOptions, *, credentials: str | None = None
) -> list[str]:
    """The ids of a dataset's registered videos to try now.

    The order is random but fixed, and thus mixes the classes: annotations are sorted by class, and
    a budget would otherwise go to the first few.

    Args:
        dataset: Whose videos.
        ledger: Says which of them are due.
        options: Which states, how many, and whether before their scheduled attempt.
        credentials: Digest of the cookies, if any: they may open what was restricted.
    """
    for note in dataset.notes:
        log.warning("%s: %s", dataset.name, note)
    ids = ledger.due(
        dataset.name,
        ids=[video.video_id for video in dataset.videos],
        credentials=credentials,
        faults=options.only or None,
        retry_now=options.ignoring_schedule,
    )
    return sorted(ids, key=unit_hash)[: options.budget]
