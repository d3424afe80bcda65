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
import logging
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError, LocalError
from coinml.media.frame_memory import Borrower, Pin
from coinml.media.full_decode import unusable
from coinml.media.open_file import opened
from coinml.media.records import ClipSpec, SampledClips, Verdict
from coinml.media.worker_messages import receive, send

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger(__name__)

MEMORY_BYTES = 8 << 30
"""Address space of a worker: enough for the clips of an 8K file."""

_LOADED_BY_NAME = ("decord", "torchcodec")
"""Decoders that a worker loads only if asked to, and before it is confined."""
_INHERITED = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)
_START_S = 120.0
_STARTS = 3

Result = TypeVar("Result")
_ERRORS: dict[str, type[CoinmlError]] = {
    kind.__name__: kind for kind in (CorruptVideoError, InvalidInputError, LocalError)
}


class DecodePool:
    """Worker processes for decoding, replaced when a file makes one hang or crash.

    Workers start with the first request. Use the pool as a context manager, or call `close`.

    Args:
        workers: Number of processes.
        memory_bytes: Limit of each process's address space; None: no limit.
        pin: Called with each block of memory that will be used for pixels repeatedly (to page-lock
            it for copies to a GPU, for instance); returns a function that releases it.
    """

    def __init__(
        self,
        *,
        workers: int = 1,
        memory_bytes: int | None = MEMORY_BYTES,
        pin: Pin | None = None,
    ) -> None:
        if workers < 1:
            raise InvalidInputError(f"workers must be at least 1, not {workers}")
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._owners = [_Owner(self._requests, memory_bytes, pin) for _ in range(workers)]
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
        request = _Request("check", path, {}, deadline_s)
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
        request = _Request("sample", path, arguments, deadline_s, shown=shown)
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

    def _submit(self, request: _Request) -> Future[_Answer]:
        with self._lock:
            if self._closed:
                raise RuntimeError("this pool is closed")
            if not self._started:
                self._started = True
                for owner in self._owners:
                    owner.start()
        self._requests.put(request)
        return request.future


class _Answer:
    """A worker's answer: fields, and the memory of the pixels where there are any."""

    def __init__(self, fields: dict[str, Any], pixels: Any) -> None:
        self.fields = fields
        self.pixels = pixels


class _Request:
    def __init__(
        self,
        kind: str,
        path: str | Path,
        arguments: dict[str, Any],
        deadline_s: float,
        *,
        shown: str | None = None,
    ) -> None:
        self.path = path
        self.shown = shown or str(path)
        self.message = {"kind": kind, "path": self.shown, "deadline_s": deadline_s, **arguments}
        self.deadline_s = deadline_s
        self.decoder = arguments.get("decoder", "auto")
        self.future: Future[_Answer] = Future()


class _Owner(threading.Thread):
    """The thread that owns one worker process and replaces it when it fails."""

    def __init__(
        self,
        requests: queue.SimpleQueue[_Request | None],
        memory_bytes: int | None,
        pin: Pin | None,
    ) -> None:
        super().__init__(name="decode-owner", daemon=True)
        self._requests = requests
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pin = pin
        self._memory = Borrower(pin)
        self._decoder = "pyav"
        self._closing = False

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def run(self) -> None:
        try:
            while (request := self._requests.get()) is not None:
                if not request.future.set_running_or_notify_cancel():
                    continue
                try:
                    request.future.set_result(self._serve(request))
                except BaseException as err:
                    request.future.set_exception(err)
        finally:
            self._stop()

    def kill(self) -> None:
        self._closing = True
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def _serve(self, request: _Request) -> _Answer:
        name = Path(request.shown).name
        for last_try in (False, True):
            connection = self._worker(request.decoder)
            try:
                with opened(request.path, shown=request.shown) as file:
                    connection.settimeout(request.deadline_s)
                    given_back = self._memory.given_back()
                    message = {**request.message, "given_back": given_back}
                    send(connection, message, file.descriptor)
                fields, descriptor = receive(connection)
                break
            except TimeoutError as err:
                self._stop()
                raise CorruptVideoError(
                    f"{name}: does not decode within {request.deadline_s:g} s"
                ) from err
            except (OSError, EOFError) as err:
                how = self._stop()
                # SIGKILL comes from outside, e.g. the kernel's OOM killer: try the file once more.
                if how != signal.SIGKILL.name or last_try or self._closing:
                    raise CorruptVideoError(f"{name}: the decoder crashed ({how})") from err
        pixels = None
        try:
            if "clips" in fields:
                size = math.prod(fields["clips"]["shape"])
                pixels = self._memory.borrow(fields["memory"], descriptor, size=size)
        finally:
            if descriptor is not None:
                os.close(descriptor)
        if "error" in fields:
            raise _ERRORS.get(fields["error"], CorruptVideoError)(fields["message"])
        return _Answer(fields, pixels)

    def _worker(self, decoder: str) -> socket.socket:
        """The socket of a worker that has loaded the decoder."""
        decoder = decoder if decoder in _LOADED_BY_NAME else "pyav"
        if self._socket is not None and self.pid is not None and self._decoder == decoder:
            return self._socket
        self._decoder = decoder
        how = ""
        for _ in range(_STARTS):
            self._stop()
            connection = self._start()
            try:
                receive(connection)
            except (OSError, EOFError):
                how = self._stop()
            else:
                return connection
            if self._closing:
                break
        raise LocalError(f"a decoding process does not start ({how})")

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    # Without the working directory on the path, whose files could shadow modules.
                    *("-P", "-m", "coinml.media.decode_worker"),
                    *(str(theirs.fileno()), str(self._memory_bytes or 0), self._decoder),
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=_environment(),
                # Ctrl-C signals the whole process group; the parent ends the workers.
                start_new_session=True,
            )
        self._socket = ours
        if self._closing:
            self.kill()
        ours.settimeout(_START_S)
        return ours

    def _stop(self) -> str:
        """End the worker and return how it ended: its exit status or signal."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._memory = Borrower(self._pin)
        process, self._process = self._process, None
        if process is None:
            return "not running"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.05)
        if process.poll() is None:
            process.kill()
        code = process.wait()
        if code >= 0:
            return f"exit status {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _environment() -> dict[str, str]:
    """Variables of a worker: how Python starts, with the running coinml first on the path.

    It may be the copy that a registered model carries, not the installed one. Passwords, tokens and
    proxies of this process stay here.

    There is one numpy thread, since more would only reserve memory.
    """
    here = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return {
        **{name: os.environ[name] for name in _INHERITED if name in os.environ},
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "PYTHONPATH": os.pathsep.join([here, *filter(None, [inherited])]),
    }


def _then(
    source: Future[_Answer],
    convert: Callable[[_Answer], Result],
    rescue: Callable[[BaseException], Result | None] | None = None,
) -> Future[Result]:
    """A future of the converted answer; `rescue` may convert an error to a result."""
    target: Future[Result] = Future()

    def settle(done: Future[_Answer]) -> None:
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
    return target


def _as_verdict(answer: _Answer) -> Verdict:
    return Verdict(**answer.fields["verdict"])


def _unusable_if_corrupt(path: str | Path) -> Callable[[BaseException], Verdict | None]:
    def rescue(err: BaseException) -> Verdict | None:
        return unusable(path, str(err)) if isinstance(err, CorruptVideoError) else None

    return rescue


def _as_clips(answer: _Answer) -> SampledClips:
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
