"""Embedding one shard of a dataset."""

from __future__ import annotations

from functools import lru_cache

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml import embedding, progress
from coinml.checkpoint import find_checkpoint
from coinml.embedding import EmbedJob, EmbedReport
from coinml.encoder import ClipEncoder, load_encoder
from coinml.settings import Settings
from coinml.store import EmbeddingSet, SetSpec
from tasks.policies import GPU_TAG, RETRIES, RETRY_DELAYS_S, RETRY_JITTER, only_transient

load_encoder_once = lru_cache(maxsize=1)(load_encoder)
"""The encoder is loaded once a process, however many shards the process embeds."""


@task(cache_policy=NO_CACHE)
def open_set(
    dataset: str, encoder: str, *, revision: str | None, clips: int, stride: int
) -> EmbeddingSet:
    """Open the embedding set of a dataset and an encoder; make it if it is not there."""
    settings = Settings()
    spec = SetSpec(
        encoder=find_checkpoint(encoder, revision=revision).spec(clips=clips, stride=stride),
        dataset=dataset,
    )
    return EmbeddingSet.open(settings.embeddings_root, dataset, spec, create=True)


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
    *,
    shard: str,
    encoder: str,
    revision: str | None,
    clips: int,
    stride: int,
    decoder: str,
) -> EmbedReport:
    """Embed what of `jobs` is not yet in the set."""
    settings = Settings()
    return embedding.embed(
        jobs,
        _encoder(encoder, revision=revision, clips=clips, stride=stride),
        EmbeddingSet.open(settings.embeddings_root, dataset, fingerprint=fingerprint),
        decoder=decoder,
        progress=progress.counter("embed"),
    )


def _encoder(ref: str, *, revision: str | None, clips: int, stride: int) -> ClipEncoder:
    return load_encoder_once(
        ref, revision=revision, device=Settings().device, clips=clips, stride=stride
    )
