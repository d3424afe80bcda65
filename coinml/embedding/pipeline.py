"""The engine's event loop: decode, resize, encode, write.

The loop runs in the caller's thread and handles whichever future is done next. A decoded video is
resized, its clips fill batches, batches are encoded, and finished videos are written.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from coinml.embedding.encoder_threads import EncoderThreads
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.part_writer import PartWriter
from coinml.embedding.report import RunStatistics
from coinml.embedding_sets import VideoRows
from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError
from coinml.media import ClipSpec, DecodePool, SampledClips

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class _DecodedVideo:
    """A video that is decoded and not yet written.

    Attributes:
        job: Its job.
        clips: Its clips, without the frames.
        equal_clips: Indices of the clips, grouped by equal frames.
        vectors: Vector by clip index, as far as encoded.
    """

    job: EmbedJob
    clips: SampledClips
    equal_clips: list[list[int]]
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)


_PreparedClip = tuple[_DecodedVideo, int, "torch.Tensor"]
"""A resized clip: its video, its group in `equal_clips`, its pixels."""


class Pipeline:
    """Takes jobs through decoding, resizing, encoding and writing."""

    def __init__(
        self,
        jobs: Sequence[EmbedJob],
        pool: DecodePool,
        threads: EncoderThreads,
        writer: PartWriter,
        statistics: RunStatistics,
        clip_spec: ClipSpec,
        *,
        decoder: str,
        deadline_s: float,
    ) -> None:
        self._jobs = iter(jobs)
        # An upper bound: equal clips of a short video are resized once.
        self._clips_to_prepare = len(jobs) * clip_spec.clips
        self._pool = pool
        self._threads = threads
        self._writer = writer
        self._statistics = statistics
        self._clip_spec = clip_spec
        self._decoder = decoder
        self._deadline_s = deadline_s
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._prepared: list[_PreparedClip] = []
        self._videos_decoding = 0
        self._videos_resizing = 0
        self._clips_encoding = 0
        # Enough to keep every worker busy, and no more: a decoded video takes much memory.
        self._max_videos = pool.workers + max(1, pool.workers // 2)
        self._max_clips = 2 * threads.concurrent_batches * threads.batch_clips

    def run(self) -> None:
        """Embed all jobs.

        Raises:
            LocalError: This machine fails (disk full, out of memory).
        """
        while True:
            self._start_decoding()
            self._start_encoding()
            if not (self._videos_decoding or self._videos_resizing or self._clips_encoding):
                break
            self._statistics.time_wait(
                self._handle_next_event, utilization=self._threads.utilization
            )
            self._writer.write_if_due()
            self._statistics.report_progress()
        self._writer.write()

    def _handle_next_event(self) -> None:
        self._events.get()()

    def _start_decoding(self) -> None:
        while (
            self._videos_decoding + self._videos_resizing < self._max_videos
            and len(self._prepared) + self._clips_encoding < self._max_clips
            and (job := next(self._jobs, None)) is not None
        ):
            future = self._pool.submit_sample(
                job.path,
                self._clip_spec,
                start_s=job.start_s,
                end_s=job.end_s,
                decoder=self._decoder,
                deadline_s=self._deadline_s,
            )
            self._videos_decoding += 1
            self._when_done(future, partial(self._on_decoded, job))

    def _on_decoded(self, job: EmbedJob, future: Future[SampledClips]) -> None:
        self._videos_decoding -= 1
        try:
            clips = future.result()
        except (CorruptVideoError, InvalidInputError) as err:
            self._clips_to_prepare -= self._clip_spec.clips
            self._statistics.add_failure(job.video_id, err)
            return
        # In a short video clips may have the same frames; each distinct clip is encoded once.
        equal_clips = _equal_rows(clips.timestamps_s)
        # Only the resizing thread holds the frames from here on, so that their memory is freed
        # as soon as it is done.
        video = _DecodedVideo(job, clips.without_frames(), equal_clips)
        self._videos_resizing += 1
        distinct = [clips.frames[first] for first, *_ in equal_clips]
        self._when_done(self._threads.prepare(distinct), partial(self._on_resized, video))

    def _on_resized(self, video: _DecodedVideo, future: Future[list[torch.Tensor]]) -> None:
        self._videos_resizing -= 1
        self._clips_to_prepare -= self._clip_spec.clips
        self._prepared += [(video, group, pixels) for group, pixels in enumerate(future.result())]

    def _start_encoding(self) -> None:
        while self._prepared:
            size = self._threads.next_batch_size(len(self._prepared) + self._clips_to_prepare)
            if len(self._prepared) < size and self._clips_to_prepare:
                break
            batch, self._prepared = self._prepared[:size], self._prepared[size:]
            self._clips_encoding += len(batch)
            future = self._threads.encode([pixels for _, _, pixels in batch])
            owners = [(video, group) for video, group, _ in batch]
            self._when_done(future, partial(self._on_encoded, owners))

    def _on_encoded(
        self, owners: list[tuple[_DecodedVideo, int]], future: Future[NDArray[np.float32]]
    ) -> None:
        self._clips_encoding -= len(owners)
        for (video, group), vector in zip(owners, future.result(), strict=True):
            video.vectors.update(dict.fromkeys(video.equal_clips[group], vector))
            if len(video.vectors) == len(video.clips.timestamps_s):
                self._finish(video)

    def _finish(self, video: _DecodedVideo) -> None:
        import numpy as np

        vectors = np.stack([video.vectors[clip] for clip in range(len(video.vectors))])
        self._statistics.clips += len(vectors)
        with np.errstate(over="ignore"):
            finite = np.isfinite(vectors.astype(np.float16)).all()
        if not finite:
            self._statistics.add_failure(
                video.job.video_id, CoinmlError("its vectors are not finite in float16")
            )
            return
        self._statistics.frames_substituted += video.clips.frames_substituted
        self._statistics.decoders[video.clips.decoder] += 1
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
                dtype=self._threads.encoder.dtype_name,
                embeddings=vectors,
            )
        )

    def _when_done(self, future: Future[Any], handle: Callable[[Future[Any]], None]) -> None:
        """Have the loop handle a future once it is done."""
        future.add_done_callback(lambda done: self._events.put(partial(handle, done)))


def _equal_rows(rows: NDArray[np.float64]) -> list[list[int]]:
    """Indices of the rows, grouped by equal rows."""
    groups: dict[bytes, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.tobytes(), []).append(index)
    return list(groups.values())
