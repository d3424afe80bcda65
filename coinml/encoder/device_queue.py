"""Submits work to a device so that a GPU does not wait for this process.

On a GPU, each thread that uploads frames takes a CUDA stream of its own from a pool, and all
batches are queued on one other stream. Frames are copied directly from the decoders' shared memory
if it is pinned (`pin`), else through pinned memory of torch. A waiting thread sleeps instead of
polling, since the decoders need the CPU. On a CPU, work runs in the calling thread.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap

    import numpy as np
    import torch
    from numpy.typing import NDArray


_REGISTER_PORTABLE = 1
"""CUDA's cudaHostRegisterPortable: pinned for every GPU of the process."""


class DeviceQueue:
    """Submits work to one device; thread-safe.

    Args:
        device: A CPU or a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._launch_lock = threading.Lock()
        self._stream: Any = None
        self._idle_streams: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def upload(
        self, frames: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Copy frames to the device and process them there, concurrently with the batches.

        Returns:
            The result of `work`, computed completely.
        """
        import torch

        if not self._on_gpu:
            return work(frames.to(self._device))
        with self._idle_stream() as stream, torch.cuda.stream(stream):
            if not frames.is_pinned():
                # Only copies from pinned memory are asynchronous; torch caches this memory.
                pinned = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
                frames = pinned.copy_(frames)
            result = work(frames.to(self._device, non_blocking=True))
            _record_event(stream).synchronize()
        return result

    def launch(self, work: Callable[[], torch.Tensor]) -> Callable[[], NDArray[np.float32]]:
        """Queue work on the device behind earlier launches.

        Returns:
            A function that waits for the result and returns it, float32. The caller must keep
            the work's input alive until then.
        """
        import torch

        with self.exclusive():
            result = work()
            if not self._on_gpu:
                computed: NDArray[np.float32] = result.cpu().numpy()
                return lambda: computed
            pinned = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
            pinned.copy_(result, non_blocking=True)
            done = _record_event(self._stream)

        def wait() -> NDArray[np.float32]:
            done.synchronize()
            fetched: NDArray[np.float32] = pinned.numpy().copy()
            return fetched

        return wait

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Inference mode and, on a GPU, the stream of all batches for one thread at a time."""
        import torch

        with torch.inference_mode():
            if not self._on_gpu:
                yield
                return
            with self._launch_lock:
                if self._stream is None:
                    self._stream = _new_stream(self._device)
                with torch.cuda.stream(self._stream):
                    yield

    @contextmanager
    def _idle_stream(self) -> Iterator[Any]:
        """A stream that no other thread uses; reused, since torch caches memory per stream."""
        try:
            stream = self._idle_streams.get_nowait()
        except queue.Empty:
            stream = _new_stream(self._device)
        try:
            yield stream
        finally:
            self._idle_streams.put(stream)

    def free_memory(self) -> None:
        """Release torch's cached GPU memory, after an out-of-memory error."""
        import torch

        if self._on_gpu:
            torch.cuda.empty_cache()

    def max_items(self, run: Callable[[int], object], *, share: float) -> int:
        """Number of items that fit in a share of a GPU's free memory at once, at least 1.

        Args:
            run: Runs the model on a number of items, to measure its memory use.
            share: Share of the free memory, 0 to 1.
        """
        import torch

        with self.exclusive():
            try:
                run(1)
                torch.cuda.synchronize(self._device)
                before = torch.cuda.memory_allocated(self._device)
                torch.cuda.reset_peak_memory_stats(self._device)
                run(2)
                torch.cuda.synchronize(self._device)
            except torch.OutOfMemoryError:
                return 1
            bytes_per_item = (torch.cuda.max_memory_allocated(self._device) - before) // 2
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(self._device)
        return max(1, int(share * free // max(bytes_per_item, 1)))


def pin(device: torch.device, memory: mmap.mmap) -> Callable[[], None] | None:
    """Pin memory of this process, so that a GPU copies from it directly.

    Args:
        device: The GPU; on a CPU nothing is pinned.
        memory: The memory; it must stay mapped until it is unpinned.

    Returns:
        A function that unpins the memory; None if it is not pinned.
    """
    import torch

    if device.type != "cuda":
        return None
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    with torch.cuda.device(device):
        status = runtime.cudaHostRegister(address, len(memory), _REGISTER_PORTABLE)
    if status != runtime.cudaError.success:
        # Some systems limit pinned memory; frames are then copied through torch's.
        return None

    def unpin() -> None:
        with torch.cuda.device(device):
            runtime.cudaHostUnregister(address)

    return unpin


def _new_stream(device: torch.device) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _record_event(stream: Any) -> Any:
    """An event at the end of a stream; a thread that waits for it sleeps."""
    import torch

    event: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event
