"""Collecting what is due of a dataset in one call."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from coinml.collection import adopt, collector
from coinml.collection.download import FetchOptions
from coinml.collection.options import CollectOptions
from coinml.collection.outcomes import VideoOutcome
from coinml.collection.pacing import Pace
from coinml.collection.source_history import SourceHistory
from coinml.collection.sources import Source, as_sources, check_folders
from coinml.collection.video_folder import DURATION_TOLERANCE
from coinml.data.records import Dataset
from coinml.data.splits import unit_hash
from coinml.errors import InvalidInputError
from coinml.ledger import Ledger, Status
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
        options: Which videos are tried, and from which sources; by default all that are due, from
            YouTube.
        fetch_options: Cookies, proxy and bandwidth of the downloads.
        pace: How fast each source may be asked; by default 300 videos per hour, and without limit
            on loopback and in folders and buckets.
        on_video: Called for each downloaded or failed video as soon as it is recorded.

    Returns:
        Counts of the dataset's videos by state.

    Raises:
        InvalidInputError: A wrong source, id or cookies file, or no folder for downloads; or a
            source is a folder that is not there.
        SourcePausedError: The source, or the last one that a video may still be at, refuses
            everyone for longer than `options.max_wait_s`.
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
    sources = options.sources or (YOUTUBE,)
    check_folders(sources)
    run_id = uuid.uuid4().hex
    credentials = fetch_options.credentials()
    due = find_due(dataset, ledger, options, credentials=credentials)
    for ask in rounds(sources):
        ids = still_open(
            ledger,
            dataset.name,
            due,
            sources,
            ask=ask,
            run_id=run_id,
            credentials=credentials,
            retry_now=options.ignoring_schedule,
        )
        # In batches, so that other collectors may take the rest meanwhile.
        for start in range(0, len(ids), options.batch_size):
            collector.collect(
                ledger.url,
                dataset.name,
                ids[start : start + options.batch_size],
                source=sources,
                ask=ask,
                folder=folder,
                run_id=run_id,
                options=fetch_options,
                pace=pace or default_pace,
                max_wait_s=options.max_wait_s,
                retry_now=options.ignoring_schedule,
                duration_tolerance=duration_tolerance(sources),
                on_video=on_video,
            )
    return ledger.status(dataset.name)


def rounds(sources: Sequence[str]) -> list[str | None]:
    """Which source each pass over the due videos asks; None: all of them, with retries and waits.

    With several sources, each has a pass of its own first, so that one that refuses, hangs or is
    slow does not delay what another one has.
    """
    return [None] if len(sources) == 1 else [*sources, None]


def still_open(
    ledger: Ledger,
    dataset: str,
    ids: Sequence[str],
    sources: Sequence[str],
    *,
    ask: str | None,
    run_id: str,
    credentials: str | None,
    retry_now: Sequence[str],
) -> list[str]:
    """Those of a run's due videos for which a source is to be asked in this pass.

    Args:
        ledger: Says what each source has said.
        dataset: Name of the dataset.
        ids: The videos.
        sources: All sources, in their order.
        ask: The one that is asked; None: any.
        run_id: The run.
        credentials: Digest of the cookies and the proxy in use.
        retry_now: Faults after which a source is asked again before its time.
    """
    if len(sources) == 1:
        return list(ids)
    rows = {row.video_id: row for row in ledger.rows(dataset, ids=ids)}
    history = SourceHistory(
        ledger,
        dataset,
        as_sources(sources),
        list(rows.values()),
        run_id=run_id,
        credentials=credentials,
        retry_now=retry_now,
    )
    # Those that the budget leaves to a later run must not count as lost.
    ledger.reopen(dataset, [one for one, row in rows.items() if history.is_unasked(row)])
    asked = [source for source in history.sources if ask in (None, source.template)]
    return [one for one in ids if any(history.is_open(rows[one], source) for source in asked)]


def default_pace(source: Source) -> Pace:
    """What a source is asked at most, unless the caller says otherwise."""
    return YOUTUBE_RATE if source.is_web and not source.is_local else Pace()


def duration_tolerance(sources: Sequence[str]) -> float | None:
    """Relative difference allowed from the annotated length; None: any.

    The stand-ins of a single local server may be shorter than the annotated videos.
    """
    first, *others = as_sources(sources)
    return None if not others and first.is_web and first.is_local else DURATION_TOLERANCE


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
    ids = [video.video_id for video in dataset.videos]
    retry_now = options.ignoring_schedule
    if len(options.sources) > 1:
        rows = ledger.rows(dataset.name, ids=ids)
        ids = still_open(
            ledger,
            dataset.name,
            [row.video_id for row in rows if not options.only or row.state in options.only],
            options.sources,
            ask=None,
            run_id="",
            credentials=credentials,
            retry_now=retry_now,
        )
    else:
        ids = ledger.due(
            dataset.name,
            ids=ids,
            credentials=credentials,
            faults=options.only or None,
            retry_now=retry_now,
        )
    return sorted(ids, key=unit_hash)[: options.budget]
