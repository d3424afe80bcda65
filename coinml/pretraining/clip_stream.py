"""The clips of each step, decoded and cropped ahead of the training."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media import ClipSpec, DecodePool, SampledClips
from coinml.pretraining.masking import Masking
from coinml.pretraining.training_videos import TrainingVideo
from coinml.pretraining.views import Views, cut, draw_order, draw_views

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """The clips of one step.

    Attributes:
        images: uint8 (clips, T, 3, height, width); None if no file of the step decodes.
        masks: bool (clips, tokens), True where masked.
        waited_s: Seconds that the training waited for them.
    """

    images: torch.Tensor | None
    masks: NDArray[np.bool_]
    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How videos become the clips of steps.

    Attributes:
        masking: The masks.
        frames: Frames per clip.
        stride: Distance between a clip's frames, in frames.
        size: (height, width) of the model's input in pixels.
        crops: Crops per decoded clip.
        videos_per_step: Decoded clips per step.
        seed: Seed of order, places, crops and masks.
    """

    masking: Masking
    frames: int
    stride: int
    size: tuple[int, int]
    crops: int
    videos_per_step: int
    seed: int


@dataclass(eq=False)
class ClipStream:
    """Gives the clips of one step after the other; a context manager that ends its threads.

    An epoch shows each video once. Steps follow each other across the borders of epochs, so that
    all have the same number of clips; those of a file that does not decode are missing.

    Attributes:
        videos: The training videos.
        pool: Decodes them.
        settings: How they become clips.
        step: The next step, from 0.
        last_step: The step before which the stream ends.
        failed: Why files do not decode, by video id.
        failed_in_a_row: Files that did not, since the last one that did.
    """

    videos: Sequence[TrainingVideo]
    pool: DecodePool
    settings: StreamSettings
    step: int
    last_step: int
    failed: dict[str, str] = field(default_factory=dict)
    failed_in_a_row: int = 0

    def __post_init__(self) -> None:
        import torch

        self._item = self.step * self.settings.videos_per_step
        self._waiting: deque[tuple[TrainingVideo, Views, Future[torch.Tensor]]] = deque()
        self._order: tuple[int, NDArray[np.int64]] | None = None
        # One step ahead, and enough to keep each worker busy: a decoded video takes much memory.
        self._ahead = self.settings.videos_per_step + 2 * self.pool.workers
        self._threads_before = torch.get_num_threads()
        # Cropping takes one core a thread: torch would spread it over those that train.
        self._croppers = ThreadPoolExecutor(
            self.pool.workers,
            thread_name_prefix="crop",
            initializer=torch.set_num_threads,
            initargs=(1,),
        )

    def take(self) -> Batch:
        """The clips of the next step.

        Raises:
            LocalError: This machine fails (no worker starts).
        """
        import torch

        started = time.perf_counter()
        images, masks = [], []
        for _ in range(self.settings.videos_per_step):
            self._submit()
            video, views, future = self._waiting.popleft()
            try:
                images.append(future.result())
            except (CorruptVideoError, InvalidInputError) as err:
                self.failed[video.video_id] = str(err)
                self.failed_in_a_row += 1
                continue
            self.failed_in_a_row = 0
            masks.append(views.masks)
        self._submit()
        self.step += 1
        return Batch(
            images=torch.cat(images) if images else None,
            masks=np.concatenate(masks) if masks else np.empty((0, 0), dtype=bool),
            waited_s=time.perf_counter() - started,
        )

    def _submit(self) -> None:
        """Have the next videos decoded and cropped."""
        end = self.last_step * self.settings.videos_per_step
        while len(self._waiting) < self._ahead and self._item < end:
            epoch, position = divmod(self._item, len(self.videos))
            if self._order is None or self._order[0] != epoch:
                order = draw_order(len(self.videos), seed=self.settings.seed, epoch=epoch)
                self._order = epoch, order
            video = self.videos[int(self._order[1][position])]
            views = draw_views(
                self.settings.masking,
                crops=self.settings.crops,
                seed=self.settings.seed,
                epoch=epoch,
                position=position,
            )
            decoded = decode(video, self.pool, self.settings, views)
            # A thread waits for the decoded clip, crops it, and drops the frames.
            cropped = self._croppers.submit(_crop, decoded, views, self.settings.size)
            self._waiting.append((video, views, cropped))
            self._item += 1

    def __enter__(self) -> ClipStream:
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        self._croppers.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads_before)


def decode(
    video: TrainingVideo, pool: DecodePool, settings: StreamSettings, views: Views
) -> Future[SampledClips]:
    """Start to decode the clip of a video that is seen."""
    spec = ClipSpec(clips=1, frames=settings.frames, stride=settings.stride, place=views.place)
    return pool.submit_sample(video.path, spec, deadline_s=_DEADLINE_S)


def fixed_clip(
    video: TrainingVideo, pool: DecodePool, settings: StreamSettings, views: Views
) -> torch.Tensor | None:
    """The crop of one clip, uint8 (1, T, 3, height, width); None if its file does not decode."""
    try:
        return _crop(decode(video, pool, settings, views), views, settings.size)
    except (CorruptVideoError, InvalidInputError):
        return None


def _crop(decoded: Future[SampledClips], views: Views, size: tuple[int, int]) -> torch.Tensor:
    return cut(decoded.result().frames[0], views, size)
