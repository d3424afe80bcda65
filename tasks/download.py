"""Getting videos: the retryable download of a batch, and adopting files that are here."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.collection import adopt, collector, recheck
from coinml.collection.adopt import AdoptReport
from coinml.collection.download import MAX_HEIGHT, FetchOptions
from coinml.collection.pacing import Pace, is_loopback
from coinml.collection.recheck import RecheckReport
from coinml.collection.video_folder import DURATION_TOLERANCE
from coinml.ledger import Ledger
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from tasks.policies import RETRIES, RETRY_DELAYS_S, RETRY_JITTER, only_transient


@task(
    task_run_name="download_batch {batch}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=RETRY_JITTER,
    retry_condition_fn=only_transient,
    # The ledger says what is done; a cached answer could only be out of date.
    cache_policy=NO_CACHE,
)
def download_batch(
    dataset: str,
    ids: list[str],
    *,
    batch: str,
    source: str,
    run_id: str,
    max_wait_s: float,
    max_height: int,
    retry_now: tuple[str, ...] = (),
) -> collector.BatchReport:
    """Download what of `ids` is still due; a retry redoes only what is not yet done.

    Settings are read where the task runs, so that no secret becomes a parameter.
    """
    settings = Settings()
    return collector.collect_batch(
        settings.ledger_url,
        dataset,
        ids,
        source=source,
        folder=settings.videos_dir(dataset),
        options=fetch_options(settings, max_height=max_height),
        run_id=run_id,
        pace=Pace(
            rate_per_hour=None if is_loopback(source) else settings.rate_per_hour,
            burst=settings.parallel,
        ),
        max_wait_s=max_wait_s,
        retry_now=retry_now,
        # What stands in for the videos on loopback need not be as long as they are.
        duration_tolerance=None if is_loopback(source) else DURATION_TOLERANCE,
        on_video=_count,
    )


@task(cache_policy=NO_CACHE)
def adopt_in_place(selection: Selection) -> AdoptReport:
    """Verify the files of a folder dataset and record them where they are."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    with Ledger(settings.ledger_url) as ledger:
        return adopt.adopt_in_place(
            ledger, dataset, progress=lambda _done, total: progress.advance("collect", total=total)
        )


@task(cache_policy=NO_CACHE)
def recheck_files(selection: Selection, deep: bool) -> RecheckReport:
    """Compare the dataset's files with the ledger; what differs is due again."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    with Ledger(settings.ledger_url) as ledger, progress.stage("recheck"):
        return recheck.recheck(
            ledger,
            dataset.name,
            deep=deep,
            progress=lambda _done, total: progress.advance("recheck", total=total),
        )


def fetch_options(settings: Settings, *, max_height: int = MAX_HEIGHT) -> FetchOptions:
    """How this machine's settings say that videos are to be fetched."""
    return FetchOptions(
        max_height=max_height,
        cookies=settings.cookies,
        proxy=settings.proxy,
        rate_limit_bytes=settings.bytes_per_s,
    )


def _count(outcome: collector.VideoOutcome) -> None:
    # What this run asks for again is counted when that is settled.
    progress.advance("collect", items=int(outcome.settled))
