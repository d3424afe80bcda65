"""A worker process of `DecodePool`: answers requests over a socket until its parent has ended.

The pool runs it as `python -m coinml.media.decode_worker DESCRIPTOR MEMORY_BYTES`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from coinml.errors import CoinmlError
from coinml.media.frame_memory import Lender
from coinml.media.full_decode import decode_fully
from coinml.media.worker_messages import receive, send


def main(descriptor: int, memory_bytes: int) -> None:
    """Serve requests until the socket closes."""
    # Imported before memory is limited and before the parent's first deadline.
    import av  # noqa: F401
    import numpy  # noqa: F401

    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    lender = Lender()
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, OSError):
        send(connection, {"ready": True})
        while True:
            request, _ = receive(connection)
            _answer(connection, request, lender)


def _answer(connection: socket.socket, request: dict[str, Any], lender: Lender) -> None:
    message: dict[str, Any]
    descriptor: int | None = None
    try:
        lender.take_back(request["given_back"])
        if request["kind"] == "check":
            message = {"verdict": asdict(decode_fully(request["path"]))}
        else:
            message = {"clips": _sample(request, lender)}
            message["memory"], descriptor = lender.lend()
    except CoinmlError as err:
        message = {"error": type(err).__name__, "message": str(err)}
    except MemoryError:
        message = {"error": "CorruptVideoError", "message": "exceeds the memory limit"}
    except Exception as err:
        # Any other exception of a decoder counts as a fault of the file.
        message = {"error": "CorruptVideoError", "message": f"{type(err).__name__}: {err}"}
    if "clips" in message:
        send(connection, message, descriptor)
        lender.sent()
    else:
        lender.keep_back()
        send(connection, message)


def _sample(request: dict[str, Any], lender: Lender) -> dict[str, Any]:
    from coinml.media.records import ClipSpec
    from coinml.media.sampling import sample

    clips = sample(
        request["path"],
        ClipSpec(**request["spec"]),
        start_s=request["start_s"],
        end_s=request["end_s"],
        decoder=request["decoder"],
        allocate=lender.allocate,
    )
    return {
        "shape": clips.frames.shape,
        "timestamps_s": clips.timestamps_s.tolist(),
        "decoder": clips.decoder,
        "frames_decoded": clips.frames_decoded,
        "frames_substituted": clips.frames_substituted,
    }


def _follow_parent(parent: int) -> None:
    """Exit when the parent has ended, even in the middle of a file."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
