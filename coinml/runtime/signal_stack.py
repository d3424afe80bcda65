"""Keeps a thread's alternate signal stack while native code runs that replaces it."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

_STACK_T_BYTES = 64
"""More than a `stack_t` of any system, which is only passed on."""


@contextlib.contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Restore the calling thread's alternate signal stack at the end of a block.

    Python's signal handlers run on it. Where a library has put its own in its place and freed that
    later, the next signal ends the process with SIGSEGV and without a message.
    """
    sigaltstack = ctypes.CDLL(None).sigaltstack
    before = ctypes.create_string_buffer(_STACK_T_BYTES)
    known = sigaltstack(None, before) == 0
    try:
        yield
    finally:
        if known:
            sigaltstack(before, None)
