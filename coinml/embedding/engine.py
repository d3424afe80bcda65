"""The embedding engine: decode ahead, batch across videos, encode, write.

Videos are decoded in processes that can be killed, while this process encodes. A batch holds clips
of several videos. Vectors are written in whole parts, often enough that a kill loses little. A
file that does not decode is an entry in the report and does not stop the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from coinml.embedding.decode_pool_cache import decode_pool
from coinml.embedding.jobs import EmbedJob, key_of
from coinml.embedding.part_writer import PartWriter
from coinml.embedding.quantization import check_quantized
from coinml.embedding.report import EmbedReport, Progress, RunStatistics
from coinml.embedding_sets import EmbeddingSet, VideoRows
from coinml.encoder.encoder_threads import EncoderThreads
from coinml.encoder.video_pipeline import NotFiniteError, VideoPipeline
from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media import DecodePool, SampledClips
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
    """Embed the jobs that are not yet in a set.

    A kill loses only vectors that were not yet written: at most about a minute of work, and a
    second's at the beginning of a run. The next call continues from there.

    Args:
        jobs: The videos; those in the set with the same extent and file hash are skipped.
        encoder: The encoder that the set was made for.
        embedding_set: The set that the vectors are written to.
        decoder: `auto`, `decord` or `pyav`.
        workers: Number of decoding processes; if None, the number of CPUs.
        pool: Decoding processes to use instead of new ones; they are not ended.
        batch_clips: Number of clips per batch; if None, as many as fit the device.
        part_videos: Largest number of videos per part.
        deadline_s: Seconds that decoding one video may take.
        progress: Called as videos are finished.

    Raises:
        InvalidInputError: The encoder is not the set's, or not quantized as the set's.
        LocalError: This machine fails (disk full, out of memory).
    """
    wanted = embedding_set.spec.encoder
    if encoder.spec.fingerprint != wanted.fingerprint:
        calibration = encoder.spec.calibration_sha256
        other_clips = replace(wanted, calibration_sha256=calibration) == encoder.spec
        raise InvalidInputError(
            f"encoder {encoder.spec.fingerprint} is not the one that set "
            f"{embedding_set.spec.fingerprint} was made for ({wanted.fingerprint})"
            + (
                ": it was quantized on other clips, and vectors of two quantized models cannot be "
                "mixed; load the encoder with the set's own"
                if other_clips
                else ""
            )
        )
    check_quantized(encoder, embedding_set)
    done = embedding_set.done(set_aside=True)
    distinct = {key_of(job): job for job in jobs}
    todo = [job for key, job in distinct.items() if key not in done]
    writer = PartWriter(embedding_set, part_videos=part_videos)
    statistics = RunStatistics(len(distinct) - len(todo), len(distinct), writer, progress)
    statistics.report_progress()
    if todo:
        clips = len(todo) * encoder.spec.clips
        batch = min(batch_clips or encoder.batch_clips, clips)
        workers = min(workers or cpu_count(), len(todo))
        with (
            _opened(pool, encoder, workers) as decoders,
            EncoderThreads(encoder, batch_clips=batch, clips=clips) as threads,
            writer,
        ):
            run = _Run(threads, writer, statistics)
            clip_spec = encoder.clip_spec(embedding_set.spec.snap)

            def decode(job: EmbedJob) -> Future[SampledClips]:
                return decoders.submit_sample(
                    job.path,
                    clip_spec,
                    start_s=job.start_s,
                    end_s=job.end_s,
                    decoder=decoder,
                    deadline_s=deadline_s,
                )

            VideoPipeline(
                todo,
                count=len(todo),
                clips=clip_spec.clips,
                workers=decoders.workers,
                decode=decode,
                threads=threads,
                on_encoded=run.write,
                on_failed=run.fail,
            ).run(around=run.time)
            writer.write()
    statistics.report_progress()
    return replace(statistics.report(), kernel=str(encoder.kernel or ""))


def _opened(
    pool: DecodePool | None, encoder: ClipEncoder, workers: int
) -> AbstractContextManager[DecodePool]:
    return nullcontext(pool) if pool is not None else decode_pool(encoder, workers=workers)


class _Run:
    """What a run does with the pipeline's results."""

    def __init__(
        self, threads: EncoderThreads, writer: PartWriter, statistics: RunStatistics
    ) -> None:
        self._threads = threads
        self._writer = writer
        self._statistics = statistics

    def time(self, step: Callable[[], None]) -> None:
        self._statistics.time_wait(step, utilization=self._threads.utilization)
        self._writer.write_if_due()
        self._statistics.report_progress()

    def write(self, job: EmbedJob, clips: SampledClips, vectors: NDArray[np.float32]) -> None:
        self._statistics.add_encoded(clips)
        self._writer.add(
            VideoRows(
                video_id=job.video_id,
                file_sha256=job.file_sha256,
                start_s=job.start_s,
                end_s=job.end_s,
                timestamps_s=clips.timestamps_s,
                decoder=clips.decoder,
                frames_decoded=clips.frames_decoded,
                frames_substituted=clips.frames_substituted,
                dtype=self._threads.encoder.dtype_name,
                embeddings=vectors,
            )
        )

    def fail(self, job: EmbedJob, err: Exception) -> None:
        # Anything else is this machine's fault or an error of coinml, and ends the run.
        if not isinstance(err, CorruptVideoError | InvalidInputError | NotFiniteError):
            raise err
        self._statistics.add_failure(job.video_id, err)
