"""Flow `embed`: turn downloaded videos into vectors."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prefect import flow

from coinml.data.targets import extent_of, require_spans
from coinml.embedding.jobs import key_of, require_jobs
from coinml.embedding.options import EmbedOptions
from coinml.embedding.report import EmbedReport
from coinml.embedding.shards import MAX_SHARDS_IN_FLIGHT, Embedder, Shard
from coinml.embedding_sets.options import SetOptions
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from tasks.alerts import announcing_failures
from tasks.counting import embed_summary
from tasks.embedding import (
    embed_shard,
    embedder_for,
    find_jobs,
    make_shards,
    open_set,
    quarantine_broken,
)
from tasks.events import announce_embedded
from tasks.outcomes import completed
from tasks.submitting import submit_all
from tasks.summaries import EmbedSummary
from tasks.threads import threads
from tasks.watching import progress_shown, rename_run


@announcing_failures
@flow(
    name="embed",
    flow_run_name="embed {selection.title}",
    # A thread only waits for the process that embeds its shard.
    task_runner=threads(MAX_SHARDS_IN_FLIGHT),
)
def embed(
    selection: Selection,
    set_options: SetOptions = SetOptions(),
    embedding: EmbedOptions = EmbedOptions(),
) -> EmbedSummary:
    """Embed the downloaded videos that are not yet in the embedding set.

    A file that does not decode is quarantined and does not stop the others. A segment behind the
    end of its file is named in the summary; its file is not at fault. Emits `coinml.embedded` if
    the set has grown.

    Args:
        selection: Which videos.
        set_options: How they become vectors; identifies the set.
        embedding: By which decoder and on which devices.

    Raises:
        InvalidInputError: A device that this machine lacks, no video is collected, or none has
            annotated extents.
        LocalError: This machine or the cluster is at fault; no video is blamed.
    """
    dataset = selection.load(Settings().data_dir)
    made = set_options.resolved(mini=selection.is_mini)
    extent = extent_of(None, made.extent)
    without_extent = require_spans(dataset.videos, extent)
    started = time.perf_counter()
    jobs = find_jobs(dataset, extent)
    require_jobs(dataset, jobs, extent)
    embedding_set = open_set(dataset, made, jobs, embedding)
    # A page of vectors that is damaged does not show in the keys.
    embedding_set.set_aside_broken()
    done = embedding_set.done(set_aside=True)
    todo = [job for job in jobs if key_of(job) not in done]
    reports: list[EmbedReport] = []
    workers = 0
    if todo:
        with (
            progress_shown(dataset.name),
            progress.stage("embed", len(todo)),
            embedder_for(embedding) as embedder,
        ):
            workers = embedder.workers
            shards = make_shards(todo, embedding_set, made, embedding, workers=workers)
            reports = _embed(dataset.name, shards, embedder)
        # Read again: of a video with one failed segment, the others are there.
        done = embedding_set.done()
    summary = embed_summary(
        reports,
        jobs,
        done,
        spec=embedding_set.spec,
        workers=workers,
        seconds=time.perf_counter() - started,
        without_extent=len(without_extent),
    )
    announce_embedded(selection, summary, set_options)
    name = f"embed {selection.title}"
    rename_run(name, f"{name} +{summary.embedded}")
    return completed(summary, message=summary.outcome, idle=summary.idle)


def _embed(dataset: str, shards: Sequence[Shard], embedder: Embedder) -> list[EmbedReport]:
    """Embed all shards, and quarantine files that do not decode, even if some shards fail.

    Raises:
        CoinmlError: What made the first of the failed shards fail.
    """
    calls = [
        {
            "shard": shard,
            "embedder": embedder,
            "number": f"{number}/{len(shards)}",
            "progress": progress.counter("embed"),
        }
        for number, shard in enumerate(shards, start=1)
    ]
    reports, errors = submit_all(embed_shard, calls, at_once=embedder.max_in_flight)
    quarantine_broken(dataset, reports)
    if errors:
        raise errors[0]
    return reports
