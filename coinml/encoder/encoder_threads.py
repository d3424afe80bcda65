"""Threads that run the encoder, so that the pipeline's loop never waits for it.

On a CPU, each thread encodes its own batch with its share of the cores. On an idle machine one
batch spread over all cores is as fast, but its threads synchronise after every operation: with
decoding processes on the same cores it was measured three to eight times slower.

On a GPU, one thread's batch computes while the other's is queued behind it, and separate threads
copy and resize frames on the device at the same time.
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


class EncoderThreads:
    """Threads that resize and encode clips; a context manager that ends them.

    Args:
        encoder: The encoder that they run.
        batch_clips: Largest number of clips per batch.
        clips: Expected number of clips in all.

    Attributes:
        encoder: As given.
        batch_clips: As given.
        concurrent_batches: Number of batches that are encoded or queued at once.
    """

    def __init__(self, encoder: ClipEncoder, *, batch_clips: int, clips: int) -> None:
        self.encoder = encoder
        self.batch_clips = batch_clips
        self._on_cpu = encoder.device.type == "cpu"
        self.concurrent_batches = max(1, min(cpu_count(), clips)) if self._on_cpu else 2
        self._threads_before: int | None = None
        self._encoders = (
            ThreadPoolExecutor(self.concurrent_batches, thread_name_prefix="encode")
            if self._on_cpu
            else self._single_core_threads(self.concurrent_batches, "encode")
        )
        # On a CPU, more threads than cores would compete with the encoding ones.
        self._resizers = (
            self._encoders
            if self._on_cpu
            else self._single_core_threads(max(2, min(8, cpu_count() // 4)), "resize")
        )
        self._lock = threading.Lock()
        self._running = 0

    @property
    def utilization(self) -> float:
        """Share of the encoding capacity that is in use, 0 to 1."""
        # A GPU is busy with one batch; the second only waits in its queue.
        return min(1.0, self._running / (self.concurrent_batches if self._on_cpu else 1))

    def next_batch_size(self, remaining: int) -> int:
        """Number of clips that the next batch should have.

        On a CPU, batches shrink towards the end, so that all threads finish at about the same
        time.

        Args:
            remaining: Number of clips that are not yet in a batch.
        """
        if not self._on_cpu:
            return self.batch_clips
        return max(1, min(self.batch_clips, -(-remaining // (2 * self.concurrent_batches))))

    def prepare(self, clips: Sequence[NDArray[np.uint8]]) -> Future[list[torch.Tensor]]:
        """Resize clips, uint8 (frames, height, width, 3) each, to the encoder's input size."""

        def work() -> list[torch.Tensor]:
            return [self.encoder.prepare(clip) for clip in clips]

        # Resizing on a CPU takes an encoding thread; on a GPU it is not part of its utilization.
        return self._submit(self._resizers, work, counted=self._on_cpu)

    def encode(
        self, clips: Sequence[torch.Tensor], *, unfinished: int
    ) -> Future[NDArray[np.float32]]:
        """Encode a batch of prepared clips: float32 (N, D).

        Args:
            clips: The batch.
            unfinished: Number of clips that are not yet encoded, with these: no more batches run at
                once, and on a CPU each takes its share of the cores.
        """
        size = self.batch_clips
        batches = max(1, min(self.concurrent_batches, unfinished))

        def work() -> NDArray[np.float32]:
            return self.encoder.encode_prepared(clips, batch_clips=size)

        return self._submit(self._encoders, work, counted=True, batches=batches)

    def __enter__(self) -> EncoderThreads:
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
        self,
        executor: ThreadPoolExecutor,
        work: Callable[[], Result],
        *,
        counted: bool,
        batches: int | None = None,
    ) -> Future[Result]:
        if not counted:
            return executor.submit(work)
        self._add_running(1)
        future = (
            executor.submit(_with_cores, cpu_count() // (batches or self.concurrent_batches), work)
            if self._on_cpu
            else executor.submit(work)
        )
        future.add_done_callback(lambda _: self._add_running(-1))
        return future

    @staticmethod
    def _single_core_threads(count: int, name: str) -> ThreadPoolExecutor:
        """Threads whose torch operations on the CPU use one core each.

        By default torch splits a copy over all cores, and its threads wait for each other in busy
        loops that take time from the decoding processes.
        """
        import torch

        return ThreadPoolExecutor(
            count, thread_name_prefix=name, initializer=torch.set_num_threads, initargs=(1,)
        )

    def _add_running(self, change: int) -> None:
        with self._lock:
            self._running += change


def _with_cores(cores: int, work: Callable[[], Result]) -> Result:
    """Run work with a number of cores in this thread."""
    import torch

    torch.set_num_threads(max(1, cores))
    return work()
