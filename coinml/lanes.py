"""The encoder at work in threads, so that the engine's loop never waits for it.

On a CPU each processor is a lane with its own batch and single-threaded arithmetic. One batch
spread over all processors would be as fast on an idle machine, but its threads wait for each
other after every operation: with decoders at work beside it, it was measured three to eight
times slower.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from coinml.encoder import ClipEncoder

Result = TypeVar("Result")


class Lanes:
    """Threads that resize and encode; a context manager.

    Args:
        encoder: What they run.
        batch_clips: Number of clips a batch.
        batches: Number of batches that will come, so that few do not leave lanes empty.

    Attributes:
        encoder: The same.
        batch_clips: The same.
        count: Number of batches that are encoded at once.
    """

    def __init__(self, encoder: ClipEncoder, *, batch_clips: int, batches: int) -> None:
        self.encoder = encoder
        self.batch_clips = batch_clips
        on_cpu = encoder.device.type == "cpu"
        self.count = max(1, min(processors(), batches)) if on_cpu else 1
        self._threads_each = max(1, processors() // self.count) if on_cpu else None
        self._threads_before: int | None = None
        self._encoders = ThreadPoolExecutor(
            self.count, thread_name_prefix="encode", initializer=self._settle_in
        )
        # A GPU is fed while it computes; on a CPU more threads would only be in the way.
        self._resizers = (
            self._encoders if on_cpu else ThreadPoolExecutor(2, thread_name_prefix="resize")
        )
        self._running = 0

    @property
    def busy(self) -> float:
        """Part of the lanes that have something to do, 0 to 1."""
        return min(1.0, self._running / self.count)

    def prepare(self, clips: Sequence[NDArray[np.uint8]]) -> Future[list[torch.Tensor]]:
        """Bring clips, uint8 (frames, height, width, 3) each, to the encoder's size."""
        return self._submit(self._resizers, lambda: [self.encoder.prepare(clip) for clip in clips])

    def encode(self, clips: Sequence[torch.Tensor]) -> Future[NDArray[np.float32]]:
        """Encode a batch of prepared clips: float32 (N, D)."""
        size = self.batch_clips
        return self._submit(
            self._encoders, lambda: self.encoder.encode_prepared(clips, batch_clips=size)
        )

    def __enter__(self) -> Lanes:
        if self._threads_each is not None:
            import torch

            self._threads_before = torch.get_num_threads()
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.shutdown(wait=True, cancel_futures=True)
        self._resizers.shutdown(wait=True, cancel_futures=True)
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)

    def _settle_in(self) -> None:
        if self._threads_each is not None:
            import torch

            torch.set_num_threads(self._threads_each)

    def _submit(self, executor: ThreadPoolExecutor, work: Callable[[], Result]) -> Future[Result]:
        self._running += 1
        future = executor.submit(work)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: Future[Any]) -> None:
        # Only ever off by a moment: a figure for the report, nothing is decided by it.
        self._running -= 1


def processors() -> int:
    """Number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
