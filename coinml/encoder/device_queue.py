"""How work gets onto a device: on a GPU without it ever waiting for this process.

There each thread that brings frames uses a stream that no other uses meanwhile, and all batches
queue on one other stream. Frames are copied from where the decoders wrote them if that memory is
pinned (`pin`), else through pinned memory of torch's. A thread that waits sleeps, since the
decoders need the processors. On a CPU work is done where it is asked for.
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
    """The way onto one device; several threads may use it at once.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._on_gpu = device.type == "cuda"
        self._launching = threading.Lock()
        self._stream: Any = None
        self._idle_streams: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def bring(
        self, frames: torch.Tensor, work: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Copy frames to the device and do something with them there, beside all else.

        Returns:
            What `work` gives, done.
        """
        import torch

        if not self._on_gpu:
            return work(frames.to(self._device))
        with self._idle_stream() as stream, torch.cuda.stream(stream):
            if not frames.is_pinned():
                # Only a copy from pinned memory is not waited for; torch keeps it for the next one.
                pinned = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True)
                frames = pinned.copy_(frames)
            result = work(frames.to(self._device, non_blocking=True))
            _mark(stream).synchronize()
        return result

    def launch(self, work: Callable[[], torch.Tensor]) -> Callable[[], NDArray[np.float32]]:
        """Start work on the device, behind what others have started.

        Returns:
            What waits for the result and gives it, float32. Until then the work's input must
            be held on to.
        """
        import torch

        with self.turn():
            result = work()
            if not self._on_gpu:
                there: NDArray[np.float32] = result.cpu().numpy()
                return lambda: there
            here = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
            here.copy_(result, non_blocking=True)
            done = _mark(self._stream)

        def wait() -> NDArray[np.float32]:
            done.synchronize()
            fetched: NDArray[np.float32] = here.numpy().copy()
            return fetched

        return wait

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Without gradients and, on a GPU, one thread at a time on the stream of all batches."""
        import torch

        with torch.inference_mode():
            if not self._on_gpu:
                yield
                return
            with self._launching:
                if self._stream is None:
                    self._stream = _new_stream(self._device)
                with torch.cuda.stream(self._stream):
                    yield

    @contextmanager
    def _idle_stream(self) -> Iterator[Any]:
        """A stream for one copy. torch keeps memory for each stream, so that they are kept too."""
        try:
            stream = self._idle_streams.get_nowait()
        except queue.Empty:
            stream = _new_stream(self._device)
        try:
            yield stream
        finally:
            self._idle_streams.put(stream)

    def free_memory(self) -> None:
        """Give back what torch keeps for later, after an out-of-memory error."""
        import torch

        if self._on_gpu:
            torch.cuda.empty_cache()

    def fitting(self, run: Callable[[int], object], *, part: float) -> int:
        """How many items at once a part of a GPU's free memory has room for, at least 1.

        Args:
            run: Takes a number of items through the model; its use of memory is measured.
            part: Of the memory, 0 to 1.
        """
        import torch

        with self.turn():
            try:
                run(1)
                torch.cuda.synchronize(self._device)
                before = torch.cuda.memory_allocated(self._device)
                torch.cuda.reset_peak_memory_stats(self._device)
                run(2)
                torch.cuda.synchronize(self._device)
            except torch.OutOfMemoryError:
                return 1
            each = (torch.cuda.max_memory_allocated(self._device) - before) // 2
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(self._device)
        return max(1, int(part * free // max(each, 1)))


def pin(device: torch.device, memory: mmap.mmap) -> Callable[[], None] | None:
    """Let a GPU read memory of this process directly, without a copy to pinned memory first.

    Args:
        device: The GPU; for another device nothing is done.
        memory: What it may read; it has to stay mapped until it is released.

    Returns:
        What releases the memory, None where it is not pinned.
    """
    import torch

    if device.type != "cuda":
        return None
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
    with torch.cuda.device(device):
        found = runtime.cudaHostRegister(address, len(memory), _REGISTER_PORTABLE)
    if found != runtime.cudaError.success:
        # Some systems allow none or little of it; copies go the longer way then.
        return None

    def release() -> None:
        with torch.cuda.device(device):
            runtime.cudaHostUnregister(address)

    return release


def _new_stream(device: torch.device) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _mark(stream: Any) -> Any:
    """A place in a stream that can be waited for, asleep."""
    import torch

    event: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event
