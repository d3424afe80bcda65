"""One worker process of a `DecodePool`, and the thread that owns it."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from coinml.errors import CoinmlError, CorruptVideoError, InvalidInputError, LocalError
from coinml.media.frame_memory import Borrower, Pin
from coinml.media.open_file import opened
from coinml.media.worker_messages import receive, send

_LOADED_BY_NAME = ("decord", "torchcodec")
"""Decoders that a worker loads only if asked to, and before it is confined."""
_INHERITED = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONUTF8", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)
_START_S = 120.0
_STARTS = 3

_ERRORS: dict[str, type[CoinmlError]] = {
    kind.__name__: kind for kind in (CorruptVideoError, InvalidInputError, LocalError)
}


class Answer:
    """A worker's answer: fields, and the memory of the pixels where there are any."""

    def __init__(self, fields: dict[str, Any], pixels: Any) -> None:
        self.fields = fields
        self.pixels = pixels


class Request:
    """What a worker is asked, and the future of its answer.

    Args:
        kind: "check" or "sample".
        path: The file, which the owner opens.
        arguments: The other arguments of the request.
        deadline_s: Seconds until the worker is ended.
        shown: How messages call the file; by default its path.
    """

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
        self.future: Future[Answer] = Future()


class Owner(threading.Thread):
    """The thread that owns one worker process and replaces it when it fails."""

    def __init__(
        self,
        requests: queue.SimpleQueue[Request | None],
        memory_bytes: int | None,
        pin: Pin | None,
        idle_s: float | None,
    ) -> None:
        super().__init__(name="decode-owner", daemon=True)
        self._requests = requests
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._pin = pin
        self._idle_s = idle_s
        self._memory = Borrower(pin)
        self._decoder = "pyav"
        self._closing = False

    @property
    def pid(self) -> int | None:
        """The worker's process id; None if there is no worker."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def run(self) -> None:
        """Serve requests until there is a None among them."""
        try:
            while (request := self._next_request()) is not None:
                if not request.future.set_running_or_notify_cancel():
                    continue
                try:
                    request.future.set_result(self._serve(request))
                except BaseException as err:
                    request.future.set_exception(err)
        finally:
            self._stop()

    def _next_request(self) -> Request | None:
        """Wait for a request, without a process after a while; None: the pool is closed."""
        try:
            return self._requests.get(timeout=self._idle_s if self._process is not None else None)
        except queue.Empty:
            self._stop()
            return self._requests.get()

    def kill(self) -> None:
        """End the worker and start no other."""
        self._closing = True
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    def _serve(self, request: Request) -> Answer:
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
        return Answer(fields, pixels)

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
