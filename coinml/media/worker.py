"""The other end of `workers`: answers requests over a socket until its parent is gone.

Run as `python -m coinml.media.worker DESCRIPTOR MEMORY_BYTES` by `DecodePool` alone.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from coinml.errors import CoinmlError
from coinml.media.checking import decode_fully
from coinml.media.wire import receive, send

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def main(descriptor: int, memory_bytes: int) -> None:
    """Serve requests until the socket closes."""
    # Loaded before the memory is limited and before the parent's clock runs.
    import av  # noqa: F401
    import numpy  # noqa: F401

    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, OSError):
        send(connection, {"ready": True})
        while True:
            request, _ = receive(connection)
            _answer(connection, request)


def _answer(connection: socket.socket, request: dict[str, Any]) -> None:
    memory = _SharedMemory()
    message: dict[str, Any]
    try:
        if request["kind"] == "check":
            message = {"verdict": asdict(decode_fully(request["path"]))}
        else:
            message = {"clips": _sample(request, memory)}
    except CoinmlError as err:
        message = {"error": type(err).__name__, "message": str(err)}
    except MemoryError:
        message = {"error": "CorruptVideoError", "message": "takes more memory than is allowed"}
    except Exception as err:
        # A decoder's surprise is the file's fault until shown otherwise: it costs this file.
        message = {"error": "CorruptVideoError", "message": f"{type(err).__name__}: {err}"}
    try:
        send(connection, message, memory.descriptor if "clips" in message else None)
    finally:
        memory.close()


def _sample(request: dict[str, Any], memory: _SharedMemory) -> dict[str, Any]:
    from coinml.media.records import ClipSpec
    from coinml.media.sampling import sample

    clips = sample(
        request["path"],
        ClipSpec(**request["spec"]),
        start_s=request["start_s"],
        end_s=request["end_s"],
        decoder=request["decoder"],
        allocate=memory.allocate,
    )
    return {
        "shape": clips.frames.shape,
        "timestamps_s": clips.timestamps_s.tolist(),
        "decoder": clips.decoder,
        "frames_decoded": clips.frames_decoded,
        "frames_substituted": clips.frames_substituted,
    }


_POPULATED = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
"""All pages at once: one by one, 90 MB of frames are 22,000 faults on either side."""


class _SharedMemory:
    """An anonymous file that becomes the answer's pixels."""

    def __init__(self) -> None:
        self.descriptor: int | None = None

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        import numpy as np

        self.close()
        size = int(np.prod(shape))
        if hasattr(os, "memfd_create"):
            self.descriptor = os.memfd_create("coinml-clips")
        else:
            with tempfile.TemporaryFile() as file:
                self.descriptor = os.dup(file.fileno())
        os.ftruncate(self.descriptor, size)
        return np.frombuffer(
            mmap.mmap(self.descriptor, size, flags=_POPULATED), dtype=np.uint8
        ).reshape(shape)

    def close(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None


def _follow_parent(parent: int) -> None:
    """End when the parent is gone, also in the middle of a file."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
