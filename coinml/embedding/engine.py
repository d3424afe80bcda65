"""The embedding engine: decode ahead, batch across videos, encode, write.

Decoding runs in killable processes while this one encodes; clips of several videos fill a batch;
what is encoded is written in whole parts soon enough that little is lost to a kill. A file that
does not decode is an entry in the report, never the end of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from coinml.embedding.encoder_threads import Lanes
from coinml.embedding.jobs import EmbedJob, key_of
from coinml.embedding.kept_decoders import decode_pool
from coinml.embedding.part_writer import PartWriter
from coinml.embedding.pipeline import Conveyor
from coinml.embedding.report import EmbedReport, Progress, Tally
from coinml.embedding_sets import EmbeddingSet
from coinml.errors import InvalidInputError
from coinml.media import DecodePool
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    from coinml.encoder.clip_encoder import ClipEncoder


def embed(
    jobs: Sequence[EmbedJob],
    encoder: ClipEncoder,
    embedding_set: EmbeddingSet,
    *,
    decoder: str = "auto",
    workers: int | None = None,
    pool: DecodePool | None = None,
    batch_clips: int | None = None,
    part_videos: int = 256,
    deadline_s: float = 60,
    progress: Progress | None = None,
) -> EmbedReport:
    """Embed what is not yet in a set.

    A kill at any moment loses what was not yet written, at most about a minute's work (a second's
    at the beginning); the next call goes on from there.

    Args:
        jobs: What to embed; those in the set with the same extent and file are skipped.
        encoder: Must be the one that the set was made for.
        embedding_set: Where the vectors go.
        decoder: `auto`, `decord` or `pyav`.
        workers: Number of decoding processes; as many as there are processors if None.
        pool: Decoding processes to use instead of new ones; it is not closed.
        batch_clips: Number of clips a batch; what fits the device if None.
        part_videos: Greatest number of videos a part.
        deadline_s: Seconds that decoding one video may take.
        progress: Called as videos get through.

    Raises:
        InvalidInputError: The encoder is not the set's.
        LocalError: This machine is at fault (disk full, no memory).
    """
    if encoder.spec.fingerprint != embedding_set.spec.encoder.fingerprint:
        raise InvalidInputError(
            f"encoder {encoder.spec.fingerprint} is not the one that set "
            f"{embedding_set.spec.fingerprint} was made for "
            f"({embedding_set.spec.encoder.fingerprint})"
        )
    done = embedding_set.done(set_aside=True)
    distinct = {key_of(job): job for job in jobs}
    todo = [job for key, job in distinct.items() if key not in done]
    writer = PartWriter(embedding_set, part_videos=part_videos)
    tally = Tally(len(distinct) - len(todo), len(distinct), writer, progress)
    tally.tell()
    if todo:
        batch = min(batch_clips or encoder.batch_clips, len(todo) * encoder.spec.clips)
        workers = min(workers or cpu_count(), len(todo))
        with (
            _opened(pool, encoder, workers) as decoders,
            Lanes(encoder, batch_clips=batch, clips=len(todo) * encoder.spec.clips) as lanes,
            writer,
        ):
            clip_spec = encoder.clip_spec(embedding_set.spec.snap)
            Conveyor(
                todo,
                decoders,
                lanes,
                writer,
                tally,
                clip_spec,
                decoder=decoder,
                deadline_s=deadline_s,
            ).run()
    tally.tell()
    return tally.report()


def _opened(
    pool: DecodePool | None, encoder: ClipEncoder, workers: int
) -> AbstractContextManager[DecodePool]:
    return nullcontext(pool) if pool is not None else decode_pool(encoder, workers=workers)
