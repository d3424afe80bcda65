"""The embedding engine: decode ahead, batch across videos, encode, write.

Decoding runs in killable processes while this one encodes; clips of several videos fill a batch;
what is encoded is written in whole parts soon enough that little is lost to a kill. A file that
does not decode is an entry in the report, never the end of the run.

One loop waits for whatever is ready next: a decoded video goes to the lanes to be resized, its
clips fill batches, batches go to the lanes to be encoded, finished videos are written.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError
from coinml.lanes import Lanes, processors
from coinml.media import ClipSpec, DecodePool, SampledClips
from coinml.part_writer import PartWriter
from coinml.store import EmbeddingSet, VideoRows

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from coinml.encoder import ClipEncoder

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Takes the number of videos that are through (done before, embedded or failed) and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedJob:
    """One video (or an extent of it) to embed.

    Attributes:
        video_id: Its id in the dataset.
        path: The file.
        file_sha256: Hash of the file; with another one the video is embedded again.
        start_s: Start of the extent in seconds from the first frame, None for the whole video.
        end_s: Its end.
    """

    video_id: str
    path: str
    file_sha256: str
    start_s: float | None = None
    end_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """What a run of the engine did and where its time went.

    Attributes:
        embedded: Number of jobs embedded now.
        skipped: Number of jobs that were in the set before.
        failed: Reason by video id, for videos that could not be embedded.
        broken: The ids among them whose file does not decode; such a file is to be put aside.
        clips: Number of clips embedded; equal ones of a short video are encoded once.
        frames_substituted: Number of frames whose neighbour stands in.
        decode_wait_s: Seconds that the encoder had nothing to do (where it has several lanes,
            the part of them that was idle).
        encode_s: Seconds that it was at work.
        write_s: Seconds spent writing parts.
        seconds: All of it, from the call to the return.
    """

    embedded: int
    skipped: int
    failed: Mapping[str, str]
    broken: tuple[str, ...]
    clips: int
    frames_substituted: int
    decode_wait_s: float
    encode_s: float
    write_s: float
    seconds: float

    @property
    def bottleneck(self) -> Literal["decode", "encode", "write", "none"]:
        """What took the largest part of the time; `none` where nothing was to do."""
        parts: list[tuple[float, Literal["decode", "encode", "write"]]] = [
            (self.decode_wait_s, "decode"),
            (self.encode_s, "encode"),
            (self.write_s, "write"),
        ]
        return max(parts)[1] if self.clips else "none"


def embed(
    jobs: Sequence[EmbedJob],
    encoder: ClipEncoder,
    embedding_set: EmbeddingSet,
    *,
    decoder: str = "auto",
    workers: int | None = None,
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
    distinct = {_key(job): job for job in jobs}
    todo = [job for key, job in distinct.items() if key not in done]
    writer = PartWriter(embedding_set, part_videos=part_videos)
    tally = _Tally(len(distinct) - len(todo), len(distinct), writer, progress)
    tally.tell()
    if todo:
        batch = min(batch_clips or encoder.batch_clips, len(todo) * encoder.spec.clips)
        batches = -(-len(todo) * encoder.spec.clips // batch)
        workers = min(workers or processors(), len(todo))
        with (
            DecodePool(workers=workers) as pool,
            Lanes(encoder, batch_clips=batch, batches=batches) as lanes,
            writer,
        ):
            snap: Any = embedding_set.spec.snap
            clip_spec = replace(encoder.clip_spec, snap=snap)
            _Loop(
                todo, pool, lanes, writer, tally, clip_spec, decoder=decoder, deadline_s=deadline_s
            ).run()
    tally.tell()
    return tally.report()


def _key(job: EmbedJob) -> tuple[str, float | None, float | None, str]:
    return (job.video_id, job.start_s, job.end_s, job.file_sha256)


@dataclass(slots=True, eq=False)
class _Video:
    """A video between decoding and writing."""

    job: EmbedJob
    clips: SampledClips
    same: list[list[int]]
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)


_Unit = tuple[_Video, int, "torch.Tensor"]
"""One clip on its way to the encoder: whose it is, and which of the video's distinct ones."""


class _Loop:
    """Takes videos through the stages; everything happens in the caller's thread but the work."""

    def __init__(
        self,
        jobs: Sequence[EmbedJob],
        pool: DecodePool,
        lanes: Lanes,
        writer: PartWriter,
        tally: _Tally,
        clip_spec: ClipSpec,
        *,
        decoder: str,
        deadline_s: float,
    ) -> None:
        self._waiting = iter(jobs)
        self._pool = pool
        self._lanes = lanes
        self._writer = writer
        self._tally = tally
        self._clip_spec = clip_spec
        self._decoder = decoder
        self._deadline_s = deadline_s
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._units: list[_Unit] = []
        self._decoding = 0
        self._resizing = 0
        self._encoding_units = 0
        # Enough that nobody waits for this process, and no more: decoded videos are large.
        self._window = pool.workers + max(1, pool.workers // 2)
        self._backlog = 2 * lanes.count * lanes.batch_clips

    def run(self) -> None:
        while True:
            self._start_decoding()
            self._start_encoding()
            if not (self._decoding or self._resizing or self._encoding_units):
                break
            self._tally.waited(self._next_event, busy=self._lanes.busy)
            self._writer.write_if_due()
            self._tally.tell()
        self._writer.write()

    def _next_event(self) -> None:
        self._events.get()()

    def _start_decoding(self) -> None:
        while (
            self._decoding + self._resizing < self._window
            and len(self._units) + self._encoding_units < self._backlog
            and (job := next(self._waiting, None)) is not None
        ):
            future = self._pool.submit_sample(
                job.path,
                self._clip_spec,
                start_s=job.start_s,
                end_s=job.end_s,
                decoder=self._decoder,
                deadline_s=self._deadline_s,
            )
            self._decoding += 1
            self._then(future, partial(self._decoded, job))

    def _decoded(self, job: EmbedJob, future: Future[SampledClips]) -> None:
        self._decoding -= 1
        try:
            clips = future.result()
        except (CorruptVideoError, InvalidInputError) as err:
            self._tally.fail(job, err)
            return
        # In a short video clips overlap wholly: what has the same frames is encoded once.
        same = _equal_rows(clips.timestamps_s)
        # Of the pixels only the lanes know from here on, so that their memory goes soon.
        video = _Video(job, clips.without_frames(), same)
        self._resizing += 1
        distinct = [clips.frames[first] for first, *_ in same]
        self._then(self._lanes.prepare(distinct), partial(self._resized, video))

    def _resized(self, video: _Video, future: Future[list[torch.Tensor]]) -> None:
        self._resizing -= 1
        self._units += [(video, group, pixels) for group, pixels in enumerate(future.result())]

    def _start_encoding(self) -> None:
        size = self._lanes.batch_clips
        nothing_more = not (self._decoding or self._resizing)
        while len(self._units) >= size or (self._units and nothing_more):
            batch, self._units = self._units[:size], self._units[size:]
            self._encoding_units += len(batch)
            future = self._lanes.encode([pixels for _, _, pixels in batch])
            owners = [(video, group) for video, group, _ in batch]
            self._then(future, partial(self._encoded, owners))

    def _encoded(
        self, owners: list[tuple[_Video, int]], future: Future[NDArray[np.float32]]
    ) -> None:
        self._encoding_units -= len(owners)
        for (video, group), vector in zip(owners, future.result(), strict=True):
            video.vectors.update(dict.fromkeys(video.same[group], vector))
            if len(video.vectors) == len(video.clips.timestamps_s):
                self._finished(video)

    def _finished(self, video: _Video) -> None:
        import numpy as np

        vectors = np.stack([video.vectors[clip] for clip in range(len(video.vectors))])
        self._tally.clips += len(vectors)
        with np.errstate(over="ignore"):
            fits = np.isfinite(vectors.astype(np.float16)).all()
        if not fits:
            self._tally.fail(video.job, CoinmlError("its vectors are not finite in float16"))
            return
        self._tally.substituted += video.clips.frames_substituted
        self._writer.add(
            VideoRows(
                video_id=video.job.video_id,
                file_sha256=video.job.file_sha256,
                start_s=video.job.start_s,
                end_s=video.job.end_s,
                timestamps_s=video.clips.timestamps_s,
                decoder=video.clips.decoder,
                frames_decoded=video.clips.frames_decoded,
                frames_substituted=video.clips.frames_substituted,
                dtype=self._lanes.encoder.dtype_name,
                embeddings=vectors,
            )
        )

    def _then(self, future: Future[Any], handle: Callable[[Future[Any]], None]) -> None:
        future.add_done_callback(lambda done: self._events.put(partial(handle, done)))


def _equal_rows(rows: NDArray[np.float64]) -> list[list[int]]:
    """Numbers of the rows, equal ones together."""
    groups: dict[bytes, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row.tobytes(), []).append(number)
    return list(groups.values())


class _Tally:
    """Counts for the report."""

    def __init__(
        self, skipped: int, total: int, writer: PartWriter, progress: Progress | None
    ) -> None:
        self._started = time.perf_counter()
        self._skipped = skipped
        self._total = total
        self._writer = writer
        self._progress = progress
        self._told = -1
        self._failed: dict[str, str] = {}
        self._failed_jobs = 0
        self._broken: list[str] = []
        self._idle_s = 0.0
        self._busy_s = 0.0
        self.clips = 0
        self.substituted = 0

    def tell(self) -> None:
        """Report progress: what is on record or never will be."""
        through = self._skipped + self._writer.videos + self._failed_jobs
        if self._progress is not None and through != self._told:
            self._told = through
            self._progress(through, self._total)

    def fail(self, job: EmbedJob, error: CoinmlError) -> None:
        """Note that a video cannot be embedded."""
        logger.info("%s is not embedded: %s", job.video_id, error)
        self._failed_jobs += 1
        self._failed[job.video_id] = str(error)
        if isinstance(error, CorruptVideoError) and job.video_id not in self._broken:
            self._broken.append(job.video_id)

    def waited(self, wait: Callable[[], None], *, busy: float) -> None:
        """Run `wait` and book its time by the part of the lanes that was busy."""
        start = time.perf_counter()
        wait()
        seconds = time.perf_counter() - start
        self._busy_s += busy * seconds
        self._idle_s += (1 - busy) * seconds

    def report(self) -> EmbedReport:
        return EmbedReport(
            embedded=self._writer.videos,
            skipped=self._skipped,
            failed=dict(self._failed),
            broken=tuple(self._broken),
            clips=self.clips,
            frames_substituted=self.substituted,
            decode_wait_s=self._idle_s,
            encode_s=self._busy_s,
            write_s=self._writer.seconds,
            seconds=time.perf_counter() - self._started,
        )
