"""Embedding a dataset: its set, its shards, and the processes that embed them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.data.records import Dataset, Extent
from coinml.embedding import quantization
from coinml.embedding.jobs import EmbedJob, plan_jobs
from coinml.embedding.options import EmbedOptions
from coinml.embedding.report import EmbedReport, Progress
from coinml.embedding.shards import (
    Embedder,
    LocalEmbedder,
    Shard,
    expected_clips,
    split_jobs,
)
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.ledger import DOWNLOADED, Ledger
from coinml.runtime.devices import find_devices
from coinml.runtime.settings import Settings
from tasks.limits import reserved_devices
from tasks.policies import RETRIES, RETRY_DELAYS_S, RETRY_JITTER, only_transient


def find_jobs(dataset: Dataset, extent: Extent) -> list[EmbedJob]:
    """One job for each extent of each downloaded video, whether it is embedded already or not."""
    with Ledger.of(Settings()) as ledger:
        rows = ledger.rows_of(dataset, state=DOWNLOADED)
    return plan_jobs(dataset.videos, rows, extent)


@task(cache_policy=NO_CACHE)
def open_set(
    dataset: Dataset, set_options: SetOptions, jobs: Sequence[EmbedJob], options: EmbedOptions
) -> EmbeddingSet:
    """Open the embedding set with these options, or create it."""
    return quantization.open_set(
        Settings().embeddings_root,
        dataset.name,
        set_options,
        jobs,
        training={video.video_id for video in dataset.videos if video.split == "train"},
        decoder=options.decoder,
        deadline_s=options.deadline_s,
    )


def make_shards(
    jobs: Sequence[EmbedJob],
    embedding_set: EmbeddingSet,
    set_options: SetOptions,
    options: EmbedOptions,
    *,
    workers: int,
) -> list[Shard]:
    """The jobs in shards for this number of processes."""
    return [
        Shard(
            jobs=tuple(some),
            dataset=embedding_set.spec.dataset,
            fingerprint=embedding_set.spec.fingerprint,
            embeddings_root=Settings().embeddings_root,
            set_options=set_options,
            decoder=options.decoder,
            kernel=options.kernel,
            deadline_s=options.deadline_s,
            expected_clips=expected_clips(jobs, set_options, workers=workers),
        )
        for some in split_jobs(jobs, workers=workers, size=options.shard_size)
    ]


@contextmanager
def embedder_for(options: EmbedOptions) -> Iterator[Embedder]:
    """This process, one process per device of this machine, or the workers of a cluster."""
    if options.runner == "dask" and options.address:
        from coinml.embedding.dask_cluster import connect

        with connect(options.address) as cluster:
            yield cluster
        return
    settings = Settings()
    devices = find_devices(options.devices or settings.device)
    with reserved_devices(settings.data_dir / "locks", devices):
        if len(devices) == 1:
            with LocalEmbedder(devices[0]) as here:
                yield here
            return
        from coinml.embedding.dask_cluster import local_cluster

        with local_cluster(devices) as cluster:
            yield cluster


@task(
    task_run_name="embed_shard {number}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=RETRY_JITTER,
    retry_condition_fn=only_transient,
    # The set says what is done; a retry embeds only what is not yet in it.
    cache_policy=NO_CACHE,
)
def embed_shard(
    shard: Shard, embedder: Embedder, *, number: str, progress: Progress | None = None
) -> EmbedReport:
    """Embed those of a shard's videos that are not yet in its set, wherever the embedder runs."""
    return embedder.embed(shard, progress)


def quarantine_broken(dataset: str, reports: Sequence[EmbedReport]) -> None:
    """Quarantine files that do not decode, with the reason."""
    with Ledger.of(Settings()) as ledger:
        for report in reports:
            for video_id in report.broken:
                ledger.quarantine(dataset, video_id, report.failed[video_id])
