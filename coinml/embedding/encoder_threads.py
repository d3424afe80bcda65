"""The encoder at work in threads, so that the engine's loop never waits for it.

On a CPU each processor is a lane with its own batch and single-threaded arithmetic. One batch
spread over all processors would be as fast on an idle machine, but its threads wait for each
other after every operation: with decoders at work beside it, it was measured three to eight
times slower.

On a GPU one lane computes while the next batch already stands in its queue, and other threads
bring frames there and resize them beside it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from coinml.encoder.clip_encoder import ClipEncoder

Result = TypeVar("Result")


class Lanes:
    """Threads that resize and encode; a context manager.

    Args:
        encoder: What they run.
        batch_clips: Greatest number of clips a batch.
        clips: Number of clips that will come, as far as is known.

    Attributes:
        encoder: The same.
        batch_clips: The same.
        count: Number of batches that are on their way at once.
    """

    def __init__(self, encoder: ClipEncoder, *, batch_clips: int, clips: int) -> None:
        self.encoder = encoder
        self.batch_clips = batch_clips
        self._on_cpu = encoder.device.type == "cpu"
        self.count = max(1, min(cpu_count(), clips)) if self._on_cpu else 2
        self._threads_before: int | None = None
        self._encoders = (
            ThreadPoolExecutor(self.count, thread_name_prefix="encode")
            if self._on_cpu
            else self._beside_a_gpu(self.count, "encode")
        )
        # On a CPU more threads would only be in the way.
        self._resizers = (
            self._encoders
            if self._on_cpu
            else self._beside_a_gpu(max(2, min(8, cpu_count() // 4)), "resize")
        )
        self._lock = threading.Lock()
        self._running = 0

    @property
    def busy(self) -> float:
        """Part of what encodes that has something to do, 0 to 1."""
        # Of a GPU's two batches one waits for the other: with one there it is at work.
        return min(1.0, self._running / (self.count if self._on_cpu else 1))

    def next_batch(self, left: int) -> int:
        """Number of clips that the next batch shall have.

        On a CPU batches become smaller towards the end, so that no lane stands still while
        another has the last full one.

        Args:
            left: Number of clips that are not yet in a batch.
        """
        if not self._on_cpu:
            return self.batch_clips
        return max(1, min(self.batch_clips, -(-left // (2 * self.count))))

    def prepare(self, clips: Sequence[NDArray[np.uint8]]) -> Future[list[torch.Tensor]]:
        """Bring clips, uint8 (frames, height, width, 3) each, to the encoder's size."""

        def work() -> list[torch.Tensor]:
            return [self.encoder.prepare(clip) for clip in clips]

        # On a CPU that keeps a lane busy; beside a GPU it says nothing of that.
        return self._submit(self._resizers, work, counted=self._on_cpu)

    def encode(self, clips: Sequence[torch.Tensor]) -> Future[NDArray[np.float32]]:
        """Encode a batch of prepared clips: float32 (N, D)."""
        size = self.batch_clips

        def work() -> NDArray[np.float32]:
            return self.encoder.encode_prepared(clips, batch_clips=size)

        return self._submit(self._encoders, work, counted=True)

    def __enter__(self) -> Lanes:
        import torch

        self._threads_before = torch.get_num_threads()
        return self

    def __exit__(self, *_: object) -> None:
        self._encoders.shutdown(wait=True, cancel_futures=True)
        self._resizers.shutdown(wait=True, cancel_futures=True)
        if self._threads_before is not None:
            import torch

            torch.set_num_threads(self._threads_before)

    def _submit(
        self, executor: ThreadPoolExecutor, work: Callable[[], Result], *, counted: bool
    ) -> Future[Result]:
        if not counted:
            return executor.submit(work)
        self._count(1)
        future = executor.submit(self._alone, work) if self._on_cpu else executor.submit(work)
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _alone(self, work: Callable[[], Result]) -> Result:
        """Run work on this lane's share of the processors."""
        import torch

        torch.set_num_threads(max(1, cpu_count() // self.count))
        return work()

    @staticmethod
    def _beside_a_gpu(count: int, name: str) -> ThreadPoolExecutor:
        """Threads that copy with one processor each.

        torch would spread a copy over all of them, where its helpers wait for each other, awake,
        while the decoders have the processors.
        """
        import torch

        return ThreadPoolExecutor(
            count, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,)
        )

    def _count(self, change: int) -> None:
        with self._lock:
            self._running += change
