"""The engine's loop: a video's way from the decoders through the lanes to the writer.

It waits for whatever is ready next: a decoded video goes to the lanes to be resized, its clips
fill batches, batches go to the lanes to be encoded, finished videos are written.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from coinml.embedding.encoder_threads import Lanes
from coinml.embedding.jobs import EmbedJob
from coinml.embedding.part_writer import PartWriter
from coinml.embedding.report import Tally
from coinml.embedding_sets import VideoRows
from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError
from coinml.media import ClipSpec, DecodePool, SampledClips

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@dataclass(slots=True, eq=False)
class _Video:
    """A video between decoding and writing."""

    job: EmbedJob
    clips: SampledClips
    same: list[list[int]]
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)


_Unit = tuple[_Video, int, "torch.Tensor"]
"""One clip on its way to the encoder: whose it is, and which of the video's distinct ones."""


class Conveyor:
    """Takes videos through the stages; everything happens in the caller's thread but the work."""

    def __init__(
        self,
        jobs: Sequence[EmbedJob],
        pool: DecodePool,
        lanes: Lanes,
        writer: PartWriter,
        tally: Tally,
        clip_spec: ClipSpec,
        *,
        decoder: str,
        deadline_s: float,
    ) -> None:
        self._waiting = iter(jobs)
        # Clips that have not yet been resized; those of equal frames may turn out fewer.
        self._coming = len(jobs) * clip_spec.clips
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
        """Take all through.

        Raises:
            LocalError: This machine is at fault (disk full, no memory).
        """
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
            self._coming -= self._clip_spec.clips
            self._tally.fail(job.video_id, err)
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
        self._coming -= self._clip_spec.clips
        self._units += [(video, group, pixels) for group, pixels in enumerate(future.result())]

    def _start_encoding(self) -> None:
        while self._units:
            size = self._lanes.next_batch(len(self._units) + self._coming)
            if len(self._units) < size and self._coming:
                break
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
            self._tally.fail(
                video.job.video_id, CoinmlError("its vectors are not finite in float16")
            )
            return
        self._tally.substituted += video.clips.frames_substituted
        self._tally.decoders[video.clips.decoder] += 1
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
