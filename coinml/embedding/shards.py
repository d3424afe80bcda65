"""A shard: some of a dataset's videos, embedded by one process, whichever it is."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from coinml.embedding import engine
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.kept_decoders import KeptDecoders
from coinml.embedding.report import EmbedReport, Progress
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.errors import LocalError

SHARD_VIDEOS = 2048
"""Videos a shard where one process does them all: nothing is lost with a shard that is not
finished, since the engine writes as it goes and the set says what is done."""

SHARDS_IN_HAND = 64
"""Shards that wait in a cluster's own queue, so that whoever gets free or joins finds one."""

_SMALL_SHARD_VIDEOS = 32
_SHARDS_EACH = 4

_DECODERS = KeptDecoders()
"""The decoding processes of this one, for shard after shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Some videos to embed, with all that a process needs to know, wherever it runs.

    Attributes:
        jobs: The videos.
        dataset: Name of the dataset.
        fingerprint: The set's.
        embeddings_root: Folder or fsspec URL that the set lies below.
        set_options: How videos become vectors, with the encoder named.
        decoder: As `embedding.embed` takes it.
        deadline_s: Seconds that decoding one video may take.
    """

    jobs: tuple[EmbedJob, ...]
    dataset: str
    fingerprint: str
    embeddings_root: str
    set_options: SetOptions
    decoder: str = "auto"
    deadline_s: float = 60


class Embedder(Protocol):
    """Embeds shards, in this process or in others.

    Attributes:
        in_hand: Number of shards that it takes at once; some may wait in a queue of its own.
    """

    in_hand: int

    @property
    def workers(self) -> int:
        """Number of shards that are embedded at once."""
        ...

    def embed(self, shard: Shard, progress: Progress | None = None) -> EmbedReport:
        """Embed what of a shard is not yet in its set; threads may call it."""
        ...


class ThisProcess:
    """Embeds one shard after another, here; a context manager.

    Args:
        device: Where the encoder runs.
    """

    workers = 1
    in_hand = 1

    def __init__(self, device: str) -> None:
        self._device = device

    def embed(self, shard: Shard, progress: Progress | None = None) -> EmbedReport:
        """Embed what of a shard is not yet in its set."""
        return embed_shard(shard, device=self._device, progress=progress)

    def __enter__(self) -> ThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        _DECODERS.close()


def embed_shard(shard: Shard, *, device: str, progress: Progress | None = None) -> EmbedReport:
    """Embed what of a shard is not yet in its set.

    Raises:
        InvalidInputError: The encoder is not here, or is not the set's.
        LocalError: This machine is at fault, or sees none of the videos or not the set.
        TransientError: The hub does not answer.
    """
    if not any(Path(job.path).is_file() for job in shard.jobs):
        raise LocalError(f"{shard.jobs[0].path} is not here, nor any other video of its shard")
    encoder = load_encoder_once(shard.set_options, device)
    embeddings = EmbeddingSet.open(
        shard.embeddings_root, shard.dataset, fingerprint=shard.fingerprint
    )
    with _DECODERS.pool(encoder) as pool:
        return engine.embed(
            shard.jobs,
            encoder,
            embeddings,
            pool=pool,
            decoder=shard.decoder,
            deadline_s=shard.deadline_s,
            progress=progress,
        )


@lru_cache(maxsize=1)
def load_encoder_once(options: SetOptions, device: str) -> ClipEncoder:
    """The encoder, loaded once a process, however many shards the process embeds."""
    return load_encoder(
        str(options.encoder), revision=options.revision, device=device, sampling=options.sampling
    )


def deal(
    jobs: Sequence[EmbedJob], *, workers: int, size: int | None = None
) -> list[list[EmbedJob]]:
    """Cut jobs into shards.

    Args:
        jobs: What is to be embedded.
        workers: Number of processes that will take shards as they become free.
        size: Videos a shard; if None, so many that each process gets several and all end at
            about the same time.
    """
    if size is None and workers == 1:
        size = SHARD_VIDEOS
    elif size is None:
        even = -(-len(jobs) // (workers * _SHARDS_EACH))
        size = min(max(even, _SMALL_SHARD_VIDEOS), SHARD_VIDEOS)
    return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def device_environment(device: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What makes a new process use one device, and see no other GPU.

    Args:
        device: The device, as this process counts them.
        environment: This process's, which may hide some GPUs or order them otherwise.
    """
    if device == "cpu":
        return {"COINML_DEVICE": "cpu"}
    number = device.removeprefix("cuda:")
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    seen = visible[int(number)].strip() if visible else number
    return {"COINML_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": seen}
