"""A worker process of `DecodePool`: answers requests over a socket until its parent has ended.

The pool runs it as `python -m coinml.media.decode_worker DESCRIPTOR MEMORY_BYTES DECODER`. It is
confined before its first request: it can open no file and no socket (`coinml.runtime.confinement`),
and reads the open file that comes with each request.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import math
import os
import pkgutil
import resource
import socket
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from coinml.errors import CoinmlError, LocalError
from coinml.media.frame_memory import Lender
from coinml.media.full_decode import decode_fully
from coinml.media.open_file import OpenFile
from coinml.media.worker_messages import receive, send
from coinml.runtime.confinement import confine

_UNUSED_MODULES = ("av.__main__", "av.datasets")
_OPEN_FILES = 64
_CPU_SLACK_S = 2


def main(descriptor: int, memory_bytes: int, decoder: str) -> None:
    """Serve requests until the socket closes."""
    _import_all(decoder)
    _limit(memory_bytes)
    # A missing module was reported there; a decoder has nothing to write.
    for stream in (1, 2):
        os.dup2(0, stream)
    # Before any thread starts, since Landlock confines the calling thread and its later ones.
    confine()
    sys.meta_path.insert(0, _NoLateImports())
    threading.Thread(target=_follow_parent, args=(os.getppid(),), daemon=True).start()
    lender = Lender()
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, OSError):
        send(connection, {"ready": True})
        while True:
            request, file = receive(connection)
            if file is None:
                raise EOFError  # A file comes with every request.
            _limit_cpu(request["deadline_s"])
            _answer(connection, request, file, lender)


def _import_all(decoder: str) -> None:
    """Import all that a request needs: a confined process cannot open a module's file."""
    import av
    import numpy.ma  # noqa: F401

    import coinml.media.sampling
    import coinml.media.time_stamps  # noqa: F401
    from coinml.media.decoders import DecoderMissingError
    from coinml.media.random_access_decoders import load_decoder

    # PyAV and numpy import some of their modules when a file needs them.
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if module.name not in _UNUSED_MODULES:
            importlib.import_module(module.name)
    # The request says so if the decoder is missing.
    with contextlib.suppress(DecoderMissingError):
        load_decoder(decoder)


class _NoLateImports(importlib.abc.MetaPathFinder):
    """Stops the run at an import after confinement, which would be taken for a damaged file."""

    def find_spec(self, name: str, *_: object) -> None:
        raise LocalError(f"decoding needs the module {name}, which was not loaded at the start")


def _limit(memory_bytes: int) -> None:
    """Limit memory, the size of a file, and the number of open files."""
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: _OPEN_FILES}
    if memory_bytes:
        # The only files that it can write are blocks of shared memory.
        limits |= {resource.RLIMIT_AS: memory_bytes, resource.RLIMIT_FSIZE: memory_bytes}
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))


def _limit_cpu(deadline_s: float) -> None:
    """End this process with SIGXCPU if a file takes more CPU time than its deadline allows."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = math.ceil(used.ru_utime + used.ru_stime + deadline_s) + _CPU_SLACK_S
    resource.setrlimit(
        resource.RLIMIT_CPU, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard)
    )


def _answer(
    connection: socket.socket, request: dict[str, Any], descriptor: int, lender: Lender
) -> None:
    message: dict[str, Any]
    memory: int | None = None
    try:
        lender.take_back(request["given_back"])
        file = OpenFile(request["path"], descriptor)
        if request["kind"] == "check":
            message = {"verdict": asdict(decode_fully(file))}
        else:
            message = {"clips": _sample(file, request, lender)}
            message["memory"], memory = lender.lend()
    except CoinmlError as err:
        message = {"error": type(err).__name__, "message": str(err)}
    except MemoryError:
        message = {"error": "CorruptVideoError", "message": "exceeds the memory limit"}
    except Exception as err:
        # Any other exception of a decoder counts as a fault of the file.
        message = {"error": "CorruptVideoError", "message": f"{type(err).__name__}: {err}"}
    # Before the answer, after which the pool may expect it closed.
    os.close(descriptor)
    if "clips" in message:
        send(connection, message, memory)
        lender.sent()
    else:
        lender.keep_back()
        send(connection, message)


def _sample(file: OpenFile, request: dict[str, Any], lender: Lender) -> dict[str, Any]:
    from coinml.media.records import ClipSpec
    from coinml.media.sampling import sample

    clips = sample(
        file,
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
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
