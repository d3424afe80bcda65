"""Videos to vectors: decode ahead, resize, batch clips across videos, encode.

The loop runs in the caller's thread and handles whichever future is done next. A decoded video is
resized, its clips fill batches, and batches are encoded. Both embedding a dataset and predicting
with a registered model run it.
"""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from coinml.encoder.encoder_threads import EncoderThreads
from coinml.errors import CoinmlError
from coinml.media import SampledClips

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

Job = TypeVar("Job")


class NotFiniteError(CoinmlError):
    """A video's vectors are not finite in float16, in which they are stored and classified."""


@dataclass(slots=True, eq=False)
class _DecodedVideo(Generic[Job]):
    """A video that is decoded and not yet encoded.

    Attributes:
        job: Its job.
        clips: Its clips, without the frames.
        equal_clips: Indices of the clips, grouped by equal frames.
        vectors: Vector by clip index, as far as encoded.
        failed: Whether one of its clips could not be encoded.
    """

    job: Job
    clips: SampledClips
    equal_clips: list[list[int]]
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    failed: bool = False


class VideoPipeline(Generic[Job]):
    """Takes jobs, each a video, through decoding, resizing and encoding.

    Args:
        jobs: The jobs; each is taken when there is room for its frames.
        count: Number of jobs.
        clips: Number of clips of each video.
        workers: Number of videos that are decoded at once.
        decode: Starts to decode a job's video, and raises nothing: the future does.
        threads: Threads that resize and encode.
        on_encoded: Called with a job, its clips without their frames, and its vectors, float32
            (clips, D), all finite as float16.
        on_failed: Called with a job and the reason why it has no vectors; what it raises ends the
            run.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        *,
        count: int,
        clips: int,
        workers: int,
        decode: Callable[[Job], Future[SampledClips]],
        threads: EncoderThreads,
        on_encoded: Callable[[Job, SampledClips, NDArray[np.float32]], None],
        on_failed: Callable[[Job, Exception], None],
    ) -> None:
        self._jobs = iter(jobs)
        self._clips = clips
        # An upper bound: equal clips of a short video are resized once.
        self._clips_to_prepare = count * clips
        self._decode = decode
        self._threads = threads
        self._on_encoded = on_encoded
        self._on_failed = on_failed
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # A resized clip: its video, its group in `equal_clips`, its pixels.
        self._prepared: list[tuple[_DecodedVideo[Job], int, torch.Tensor]] = []
        self._decoding: set[Future[SampledClips]] = set()
        self._videos_resizing = 0
        self._clips_encoding = 0
        self._ended = False
        # Enough to keep every worker busy, and no more: a decoded video takes much memory.
        self._max_videos = workers + max(1, workers // 2)
        self._max_clips = 2 * threads.concurrent_batches * threads.batch_clips

    def run(
        self,
        *,
        until_s: float = math.inf,
        around: Callable[[Callable[[], None]], None] = lambda step: step(),
    ) -> None:
        """Encode all jobs.

        Args:
            until_s: When to stop, by the monotonic clock.
            around: Called with each step, which waits for a result and handles it; it runs the
                step, and can time it or do something after it.

        Raises:
            TimeoutError: It is `until_s`; no job is handled afterwards.
        """
        try:
            while True:
                self._start_decoding()
                self._start_encoding()
                if not (self._decoding or self._videos_resizing or self._clips_encoding):
                    break
                around(partial(self._handle_next_event, until_s))
        finally:
            self._end()

    def _handle_next_event(self, until_s: float) -> None:
        left_s = until_s - time.monotonic()
        # What is done by then is not handled either: a stopped run ends, however much is done.
        if left_s <= 0:
            raise TimeoutError
        try:
            handle = self._events.get(timeout=None if math.isinf(left_s) else left_s)
        except queue.Empty as err:
            raise TimeoutError from err
        handle()

    def _end(self) -> None:
        """Cancel what is not done, and drop the frames of what nobody will handle."""
        self._ended = True
        for future in list(self._decoding):
            future.cancel()
        self._decoding.clear()
        self._prepared.clear()
        while not self._events.empty():
            self._events.get()

    def _start_decoding(self) -> None:
        while (
            len(self._decoding) + self._videos_resizing < self._max_videos
            and len(self._prepared) + self._clips_encoding < self._max_clips
            and (job := next(self._jobs, None)) is not None
        ):
            future = self._decode(job)
            self._decoding.add(future)
            self._when_done(future, partial(self._on_decoded, job))

    def _on_decoded(self, job: Job, future: Future[SampledClips]) -> None:
        self._decoding.discard(future)
        try:
            clips = future.result()
        except Exception as err:
            self._clips_to_prepare -= self._clips
            self._on_failed(job, err)
            return
        # In a short video clips may have the same frames; each distinct clip is encoded once.
        equal_clips = _equal_rows(clips.timestamps_s)
        # Only the resizing thread holds the frames from here on, so that their memory is freed
        # as soon as it is done.
        video = _DecodedVideo(job, clips.without_frames(), equal_clips)
        self._videos_resizing += 1
        distinct = [clips.frames[first] for first, *_ in equal_clips]
        self._when_done(self._threads.prepare(distinct), partial(self._on_resized, video))

    def _on_resized(self, video: _DecodedVideo[Job], future: Future[list[torch.Tensor]]) -> None:
        self._videos_resizing -= 1
        self._clips_to_prepare -= self._clips
        try:
            pixels = future.result()
        except Exception as err:
            self._on_failed(video.job, err)
            return
        self._prepared += [(video, group, clip) for group, clip in enumerate(pixels)]

    def _start_encoding(self) -> None:
        while self._prepared:
            size = self._threads.next_batch_size(len(self._prepared) + self._clips_to_prepare)
            if len(self._prepared) < size and self._clips_to_prepare:
                break
            batch, self._prepared = self._prepared[:size], self._prepared[size:]
            self._clips_encoding += len(batch)
            left = self._clips_encoding + len(self._prepared) + self._clips_to_prepare
            future = self._threads.encode([pixels for _, _, pixels in batch], unfinished=left)
            owners = [(video, group) for video, group, _ in batch]
            self._when_done(future, partial(self._on_batch_encoded, owners))

    def _on_batch_encoded(
        self,
        owners: Sequence[tuple[_DecodedVideo[Job], int]],
        future: Future[NDArray[np.float32]],
    ) -> None:
        self._clips_encoding -= len(owners)
        try:
            vectors = future.result()
        except Exception as err:
            for video, _ in owners:
                self._fail(video, err)
            return
        for (video, group), vector in zip(owners, vectors, strict=True):
            video.vectors.update(dict.fromkeys(video.equal_clips[group], vector))
            if len(video.vectors) == len(video.clips.timestamps_s):
                self._finish(video)

    def _finish(self, video: _DecodedVideo[Job]) -> None:
        import numpy as np

        vectors = np.stack([video.vectors[clip] for clip in range(len(video.vectors))])
        with np.errstate(over="ignore"):
            finite = np.isfinite(vectors.astype(np.float16)).all()
        if finite:
            self._on_encoded(video.job, video.clips, vectors)
        else:
            self._fail(video, NotFiniteError("its vectors are not finite in float16"))

    def _fail(self, video: _DecodedVideo[Job], err: Exception) -> None:
        """Report a video as failed, once."""
        if not video.failed:
            video.failed = True
            self._on_failed(video.job, err)

    def _when_done(self, future: Future[Any], handle: Callable[[Future[Any]], None]) -> None:
        """Have the loop handle a future once it is done."""

        def arrived(done: Future[Any]) -> None:
            if not self._ended:
                self._events.put(partial(handle, done))

        future.add_done_callback(arrived)


def _equal_rows(rows: NDArray[np.float64]) -> list[list[int]]:
    """Indices of the rows, grouped by equal rows."""
    groups: dict[bytes, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.tobytes(), []).append(index)
    return list(groups.values())
