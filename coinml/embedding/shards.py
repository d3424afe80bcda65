"""Shards: parts of a dataset that one process embeds, on this machine or another."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from coinml.embedding import engine
from coinml.embedding.decode_pool_cache import DecodePoolCache
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.report import EmbedReport, Progress
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import quantized_file
from coinml.encoder.clip_encoder import ClipEncoder, load_encoder
from coinml.encoder.kernel_choice import UNKNOWN_WORK_CLIPS
from coinml.errors import LocalError

SHARD_VIDEOS = 2048
"""Largest number of videos per shard by default. Interrupting a large shard loses little, since the
engine writes parts as it goes and the next run skips what is in the set."""

MAX_SHARDS_IN_FLIGHT = 64
"""Shards submitted to a cluster at once, so that workers that become free or join find one."""

_MIN_SHARD_VIDEOS = 32
_SHARDS_PER_WORKER = 4

_DECODE_POOLS = DecodePoolCache()
"""This process's decoding processes, reused by its shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Videos to embed, and everything that a process on any machine must know to do it.

    Attributes:
        jobs: The videos.
        dataset: Name of the dataset.
        fingerprint: The set's.
        embeddings_root: Folder or fsspec URL that contains the embedding sets.
        set_options: How videos become vectors, with the encoder named.
        decoder: As in `engine.embed`.
        kernel: As in `load_encoder`.
        deadline_s: Seconds that decoding one video may take.
        expected_clips: Clips that each process of the run embeds, in all its shards; None if they
            are so many, or unknown, that preparing the fastest kernel pays.
    """

    jobs: tuple[EmbedJob, ...]
    dataset: str
    fingerprint: str
    embeddings_root: str
    set_options: SetOptions
    decoder: str = "auto"
    kernel: str = "auto"
    deadline_s: float = 60
    expected_clips: int | None = None


class Embedder(Protocol):
    """Embeds shards, in this process or in others.

    Attributes:
        max_in_flight: Number of shards to submit at once; some may wait in the embedder's queue.
    """

    max_in_flight: int

    @property
    def workers(self) -> int:
        """Number of shards that are embedded at once."""
        ...

    def embed(self, shard: Shard, progress: Progress | None = None) -> EmbedReport:
        """Embed the jobs of a shard that are not yet in its set; thread-safe."""
        ...


class LocalEmbedder:
    """Embeds one shard after another in this process; a context manager that ends its decoders.

    Args:
        device: Where the encoder runs.
    """

    workers = 1
    max_in_flight = 1

    def __init__(self, device: str) -> None:
        self._device = device

    def embed(self, shard: Shard, progress: Progress | None = None) -> EmbedReport:
        """Embed the jobs of a shard that are not yet in its set."""
        return embed_shard(shard, device=self._device, progress=progress)

    def __enter__(self) -> LocalEmbedder:
        return self

    def __exit__(self, *_: object) -> None:
        _DECODE_POOLS.close()


def embed_shard(shard: Shard, *, device: str, progress: Progress | None = None) -> EmbedReport:
    """Embed the jobs of a shard that are not yet in its set, in this process.

    Raises:
        InvalidInputError: The encoder is not on this machine, or differs from the set's.
        LocalError: This machine fails, or it sees none of the videos, or not the set.
        TransientError: The hub does not answer.
    """
    if not any(Path(job.path).is_file() for job in shard.jobs):
        raise LocalError(
            f"{shard.jobs[0].path} is not on this machine, nor any other video of its shard"
        )
    embeddings = EmbeddingSet.open(
        shard.embeddings_root, shard.dataset, fingerprint=shard.fingerprint
    )
    encoder = load_encoder_once(
        shard.set_options, device, shard.kernel, quantized_file(embeddings), shard.expected_clips
    )
    with _DECODE_POOLS.pool(encoder) as pool:
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
def load_encoder_once(
    options: SetOptions,
    device: str,
    kernel: str = "auto",
    quantized: Path | None = None,
    expected_clips: int | None = None,
) -> ClipEncoder:
    """The encoder, loaded once per process for all its shards."""
    return load_encoder(
        str(options.encoder),
        revision=options.revision,
        device=device,
        kernel=kernel,
        sampling=options.sampling,
        quantized=quantized,
        expected_clips=expected_clips,
    )


def expected_clips(jobs: Sequence[EmbedJob], options: SetOptions, *, workers: int) -> int | None:
    """The value of `Shard.expected_clips` for the jobs of a run with this number of processes.

    All large runs have the same value, so that a process that does several loads its encoder once.
    """
    clips = -(-len(jobs) // max(1, workers)) * options.sampling.clips
    return clips if clips < UNKNOWN_WORK_CLIPS else None


def split_jobs(
    jobs: Sequence[EmbedJob], *, workers: int, size: int | None = None
) -> list[list[EmbedJob]]:
    """Split jobs into shards.

    Args:
        jobs: The jobs to embed.
        workers: Number of processes that take shards as they become free.
        size: Videos per shard; if None, several shards per process, so that all processes end at
            about the same time.
    """
    if size is None and workers == 1:
        size = SHARD_VIDEOS
    elif size is None:
        even = -(-len(jobs) // (workers * _SHARDS_PER_WORKER))
        size = min(max(even, _MIN_SHARD_VIDEOS), SHARD_VIDEOS)
    return [list(jobs[start : start + size]) for start in range(0, len(jobs), size)]


def device_environment(device: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Environment variables with which a new process uses one device and sees no other GPU.

    Args:
        device: The device, by this process's numbering.
        environment: This process's variables, of which CUDA_VISIBLE_DEVICES may hide or reorder
            GPUs.
    """
    if device == "cpu":
        return {"COINML_DEVICE": "cpu"}
    number = device.removeprefix("cuda:")
    visible = [name for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    seen = visible[int(number)].strip() if visible else number
    return {"COINML_DEVICE": "cuda", "CUDA_VISIBLE_DEVICES": seen}
