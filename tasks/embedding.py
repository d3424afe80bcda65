"""Embedding one shard of a dataset."""

from __future__ import annotations

from functools import lru_cache

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml import embedding, progress
from coinml.embedding import EmbedJob, EmbedReport
from coinml.encoder import ClipEncoder, load_encoder
from coinml.set_options import SetOptions
from coinml.settings import Settings
from coinml.store import EmbeddingSet
from tasks.policies import GPU_TAG, RETRIES, RETRY_DELAYS_S, RETRY_JITTER, only_transient


@task(cache_policy=NO_CACHE)
def open_set(dataset: str, options: SetOptions) -> EmbeddingSet:
    """Open the embedding set that is made so; make it if it is not there."""
    root = Settings().embeddings_root
    return EmbeddingSet.open(root, dataset, options.spec(dataset), create=True)


@task(
    task_run_name="embed_shard {shard}",
    tags=[GPU_TAG],
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=RETRY_JITTER,
    retry_condition_fn=only_transient,
    # The set says what is done; a retry embeds only what is not yet in it.
    cache_policy=NO_CACHE,
)
def embed_shard(
    dataset: str,
    fingerprint: str,
    jobs: list[EmbedJob],
    options: SetOptions,
    *,
    shard: str,
    decoder: str,
) -> EmbedReport:
    """Embed what of `jobs` is not yet in the set."""
    settings = Settings()
    return embedding.embed(
        jobs,
        load_encoder_once(options, settings.device),
        EmbeddingSet.open(settings.embeddings_root, dataset, fingerprint=fingerprint),
        decoder=decoder,
        progress=progress.counter("embed"),
    )


@lru_cache(maxsize=1)
def load_encoder_once(options: SetOptions, device: str) -> ClipEncoder:
    """The encoder, loaded once a process, however many shards the process embeds."""
    return load_encoder(
        str(options.encoder), revision=options.revision, device=device, **options.sampling
    )
