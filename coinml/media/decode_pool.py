"""Decoding in worker processes that may be killed.

A worker is a new interpreter that imports numpy and PyAV, not a `multiprocessing` child, which
would run the parent's main module again. One thread owns one worker: it sends a request, waits
for the answer until the deadline, and replaces a worker that hangs, crashes or exceeds its
memory limit. Only the request in progress fails.

A worker cannot open files, sockets or programs (`decode_worker`): the owner opens the file and
sends the descriptor. Its environment has no more than it takes to start Python.

Pixels are returned in anonymous shared memory (`frame_memory`), whose descriptor is sent over
the socket: nothing is copied, and the size of /dev/shm does not matter.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media.frame_memory import Pin
from coinml.media.full_decode import unusable
from coinml.media.records import ClipSpec, SampledClips, Verdict
from coinml.media.worker_owner import Answer, Owner, Request

if TYPE_CHECKING:
    from types import TracebackType

MEMORY_BYTES = 8 << 30
"""Address space of a worker: enough for the clips of an 8K file."""

Result = TypeVar("Result")


class DecodePool:
    """Worker processes for decoding, replaced when a file makes one hang or crash.

    Workers start with the first request. Use the pool as a context manager, or call `close`.

    Args:
        workers: Number of processes.
        memory_bytes: Limit of each process's address space; None: no limit.
        pin: Called with each block of memory that will be used for pixels repeatedly (to page-lock
            it for copies to a GPU, for instance); returns a function that releases it.
        idle_s: Seconds without a request after which a process ends, until the next request;
            None: processes end with the pool.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        memory_bytes: int | None = MEMORY_BYTES,
        pin: Pin | None = None,
        idle_s: float | None = None,
    ) -> None:
        if workers < 1:
            raise InvalidInputError(f"workers must be at least 1, not {workers}")
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._owners = [Owner(self._requests, memory_bytes, pin, idle_s) for _ in range(workers)]
        self._started = False
        self._closed = False
        self._lock = threading.Lock()

    def check(self, path: str | Path, *, deadline_s: float = 30) -> Verdict:
        """`media.check` in a worker; a file that exceeds the deadline is `unusable`.

        Raises:
            InvalidInputError: There is no such file.
            LocalError: The file may not be read, or no worker starts.
        """
        return self.submit_check(path, deadline_s=deadline_s).result()

    def submit_check(self, path: str | Path, *, deadline_s: float = 30) -> Future[Verdict]:
        """Start a `check`; the future raises what `check` raises."""
        request = Request("check", path, {}, deadline_s)
        return _then(self._submit(request), _as_verdict, _unusable_if_corrupt(path))

    def submit_sample(
        self,
        path: str | Path,
        spec: ClipSpec,
        *,
        start_s: float | None = None,
        end_s: float | None = None,
        decoder: str = "auto",
        deadline_s: float = 60,
        shown: str | None = None,
    ) -> Future[SampledClips]:
        """Start a `media.sample`; the future raises what `sample` raises.

        A file that makes the worker hang or crash raises `CorruptVideoError`. `shown` is how
        messages call the file; by default they use its path.
        """
        arguments = {
            "spec": {name: getattr(spec, name) for name in ClipSpec.__dataclass_fields__},
            "start_s": start_s,
            "end_s": end_s,
            "decoder": decoder,
        }
        request = Request("sample", path, arguments, deadline_s, shown=shown)
        return _then(self._submit(request), _as_clips)

    @property
    def workers(self) -> int:
        """Number of processes."""
        return len(self._owners)

    @property
    def pids(self) -> list[int]:
        """Process ids of the running workers."""
        return [owner.pid for owner in self._owners if owner.pid is not None]

    def close(self) -> None:
        """End the workers and cancel waiting requests."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(queue.Empty):
            while (request := self._requests.get_nowait()) is not None:
                request.future.cancel()
        for _ in self._owners:
            self._requests.put(None)
        for owner in self._owners:
            owner.kill()
        if self._started:
            for owner in self._owners:
                owner.join()

    def __enter__(self) -> DecodePool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(self, request: Request) -> Future[Answer]:
        with self._lock:
            if self._closed:
                raise RuntimeError("this pool is closed")
            if not self._started:
                self._started = True
                for owner in self._owners:
                    owner.start()
        self._requests.put(request)
        return request.future


def _then(
    source: Future[Answer],
    convert: Callable[[Answer], Result],
    rescue: Callable[[BaseException], Result | None] | None = None,
) -> Future[Result]:
    """A future of the converted answer; `rescue` may convert an error to a result."""
    target: Future[Result] = Future()

    def settle(done: Future[Answer]) -> None:
        if done.cancelled():
            target.cancel()
            return
        if not target.set_running_or_notify_cancel():
            return
        try:
            target.set_result(convert(done.result()))
        except BaseException as err:
            result = rescue(err) if rescue else None
            if result is None:
                target.set_exception(err)
            else:
                target.set_result(result)

    source.add_done_callback(settle)
    # Nobody waits for a request whose answer was cancelled. A weak reference, since a cycle would
    # keep the frames' memory until the next garbage collection.
    origin = weakref.ref(source)

    def cancel(done: Future[Result]) -> None:
        if done.cancelled() and (waiting := origin()) is not None:
            waiting.cancel()

    target.add_done_callback(cancel)
    return target


def _as_verdict(answer: Answer) -> Verdict:
    return Verdict(**answer.fields["verdict"])


def _unusable_if_corrupt(path: str | Path) -> Callable[[BaseException], Verdict | None]:
    def rescue(err: BaseException) -> Verdict | None:
        return unusable(path, str(err)) if isinstance(err, CorruptVideoError) else None

    return rescue


def _as_clips(answer: Answer) -> SampledClips:
    import numpy as np

    fields = answer.fields["clips"]
    shape = tuple(fields["shape"])
    return SampledClips(
        frames=np.frombuffer(answer.pixels, dtype=np.uint8).reshape(shape),
        timestamps_s=np.asarray(fields["timestamps_s"], dtype=np.float64),
        decoder=fields["decoder"],
        frames_decoded=fields["frames_decoded"],
        frames_substituted=fields["frames_substituted"],
    )
