"""How work gets onto a device: on a GPU without it ever waiting for this process.

There each thread that brings frames has a stream of its own, all batches queue on one other
stream, copies go through pinned memory, and who waits sleeps, since the decoders need the
processors. On a CPU work is done where it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


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
        self._local = threading.local()

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
        if not hasattr(self._local, "stream"):
            self._local.stream = _new_stream(self._device)
        with torch.cuda.stream(self._local.stream):
            # Only a copy from pinned memory is not waited for; torch keeps it for the next one.
            pinned = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True).copy_(frames)
            result = work(pinned.to(self._device, non_blocking=True))
            _mark(self._local.stream).synchronize()
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


def _new_stream(device: torch.device) -> Any:
    import torch

    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _mark(stream: Any) -> Any:
    """A place in a stream that can be waited for, asleep."""
    import torch

    event: Any = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    event.record(stream)
    return event
