"""Collecting videos: what is due, the retried download of a batch, and adopting existing files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.collection import adopt, collector, recheck, whole_dataset
from coinml.collection.adopt import AdoptReport
from coinml.collection.download import FetchOptions
from coinml.collection.options import CollectOptions
from coinml.collection.pacing import Pace
from coinml.collection.recheck import RecheckReport
from coinml.collection.sources import Source
from coinml.data.records import Dataset
from coinml.ledger import Ledger
from coinml.runtime import progress
from coinml.runtime.settings import YOUTUBE, Settings
from coinml.selection import Selection, miniature_dir
from tasks.policies import RETRIES, RETRY_DELAYS_S, RETRY_JITTER, only_transient


def find_due(dataset: Dataset, options: CollectOptions) -> list[str]:
    """The ids of the videos to try in this run; new videos are added to the ledger first."""
    settings = Settings()
    with Ledger.of(settings) as ledger:
        ledger.register(dataset)
        credentials = fetch_options(settings).credentials()
        return whole_dataset.find_due(dataset, ledger, options, credentials=credentials)


def still_open(
    dataset: str,
    ids: Sequence[str],
    options: CollectOptions,
    *,
    sources: Sequence[str],
    ask: str | None,
    run_id: str,
) -> list[str]:
    """Those of a run's due videos for which a source is to be asked in this pass."""
    settings = Settings()
    with Ledger.of(settings) as ledger:
        return whole_dataset.still_open(
            ledger,
            dataset,
            ids,
            sources,
            ask=ask,
            run_id=run_id,
            credentials=fetch_options(settings).credentials(),
            retry_now=options.ignoring_schedule,
        )


@contextmanager
def sources_for(selection: Selection, sources: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The sources to download from; the miniature is drawn, and a local server runs."""
    if sources or not selection.is_mini:
        yield tuple(sources) or (YOUTUBE,)
        return
    from coinml.miniature.dataset import draw_dataset
    from coinml.miniature.fault_plan import demo_fault_plan
    from coinml.miniature.host import FlakyHost

    folder = miniature_dir(Settings().data_dir)
    with progress.stage("draw"):
        draw_dataset(folder, progress=lambda _done, total: progress.advance("draw", total=total))
    with FlakyHost(folder / "videos", demo_fault_plan(folder / "COIN.json")) as host:
        yield (host.source,)


@task(
    task_run_name="download_batch {batch}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=RETRY_JITTER,
    retry_condition_fn=only_transient,
    # The ledger says what is done; a cached result could only be out of date.
    cache_policy=NO_CACHE,
)
def download_batch(
    dataset: str,
    ids: list[str],
    options: CollectOptions,
    *,
    batch: str,
    sources: tuple[str, ...],
    ask: str | None,
    run_id: str,
) -> collector.BatchReport:
    """Download those of `ids` that are still due; a retry repeats only what is not yet done.

    Settings are read where the task runs, so that no secret becomes a parameter.
    """
    settings = Settings()
    return collector.collect_batch(
        settings.ledger_url,
        dataset,
        ids,
        source=sources,
        ask=ask,
        folder=settings.videos_dir(dataset),
        options=fetch_options(settings, options),
        run_id=run_id,
        pace=lambda source: _pace(source, settings),
        max_wait_s=options.max_wait_s,
        retry_now=options.ignoring_schedule,
        duration_tolerance=whole_dataset.duration_tolerance(sources),
        on_video=_count,
    )


@task(cache_policy=NO_CACHE)
def adopt_in_place(selection: Selection) -> AdoptReport:
    """Verify the files of a folder dataset and record them where they are."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    with Ledger.of(settings) as ledger:
        return adopt.adopt_in_place(
            ledger, dataset, progress=lambda _done, total: progress.advance("collect", total=total)
        )


@task(cache_policy=NO_CACHE)
def recheck_files(dataset: str, deep: bool) -> RecheckReport:
    """Compare the dataset's files with the ledger; files that differ are due again."""
    with Ledger.of(Settings()) as ledger, progress.stage("recheck"):
        return recheck.recheck(
            ledger,
            dataset,
            deep=deep,
            progress=lambda _done, total: progress.advance("recheck", total=total),
        )


def fetch_options(settings: Settings, options: CollectOptions | None = None) -> FetchOptions:
    """How a run's options and this machine's settings say that videos are fetched."""
    return FetchOptions(
        **(options or CollectOptions()).limits(),
        cookies=settings.cookies,
        proxy=settings.proxy,
        extractor_args=settings.ytdlp_extractor_args,
        rate_limit_bytes=settings.bytes_per_s,
    )


def _pace(source: Source, settings: Settings) -> Pace:
    rate = settings.rates_per_hour.get(source.name)
    if rate is None and source.is_web and not source.is_local:
        rate = settings.rate_per_hour
    return Pace(rate_per_hour=rate, burst=settings.parallel)


def _count(outcome: collector.VideoOutcome) -> None:
    # A video that this run tries again is counted when its outcome is final.
    progress.advance("collect", items=int(outcome.settled))
