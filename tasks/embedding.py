"""Embedding one shard of a dataset."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.embedding.report import EmbedReport, Progress
from coinml.embedding.shards import Embedder, Shard
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.runtime.settings import Settings
from tasks.policies import RETRIES, RETRY_DELAYS_S, RETRY_JITTER, only_transient


@task(cache_policy=NO_CACHE)
def open_set(dataset: str, options: SetOptions) -> EmbeddingSet:
    """Open the embedding set that is made so; make it if it is not there."""
    root = Settings().embeddings_root
    return EmbeddingSet.open(root, dataset, options.spec(dataset), create=True)


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
    """Embed what of a shard is not yet in its set, here or wherever the embedder has it done."""
    return embedder.embed(shard, progress)
