"""Reusable shared memory for decoded frames, written by a worker and read by its pool.

The frames of one video are about 90 MB. Allocating that anew for each video costs a tenth of the
CPU time of decoding, for clearing and mapping pages on both sides. So a worker keeps a few
blocks, lends one with each answer, and reuses it when the pool has reported that no array refers
to it any more.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import queue
import tempfile
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEPT_BLOCKS = 3
"""Blocks that a worker keeps: one to write to, and two that may be on loan."""
_KEPT_BYTES = 256 << 20
"""Larger blocks are not kept, since they are rare."""
_MAX_SPARE_FACTOR = 4
"""A block is reused only for frames that fill more than 1 / this of it."""

_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
"""Map all pages at once: 90 MB would be 22,000 page faults on either side."""


@dataclass(slots=True, eq=False)
class _Block:
    """A block of shared memory.

    Attributes:
        number: Its number, used by both sides.
        memory: The worker's mapping.
        descriptor: File descriptor of the anonymous file, until it was sent to the pool.
    """

    number: int
    memory: mmap.mmap
    descriptor: int | None


class Lender:
    """The worker's side: creates blocks, lends them, takes them back."""

    def __init__(self) -> None:
        self._free: dict[int, _Block] = {}
        self._lent: dict[int, _Block] = {}
        self._dropped: list[int] = []
        self._current: _Block | None = None
        self._made = 0

    def take_back(self, numbers: Iterable[int]) -> None:
        """Mark lent blocks as free again."""
        for number in numbers:
            self._free[number] = self._lent.pop(number)

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array for the frames of the next answer, uint8 of this shape, in a free block."""
        import numpy as np

        self.keep_back()
        size = math.prod(shape)
        for block in list(self._free.values()):
            if not size <= len(block.memory) <= _MAX_SPARE_FACTOR * size:
                self._drop(block)
        if self._free:
            self._current = self._free.pop(next(iter(self._free)))
        else:
            self._made += 1
            self._current = _new_block(self._made, size)
        return np.frombuffer(self._current.memory, dtype=np.uint8, count=size).reshape(shape)

    def lend(self) -> tuple[dict[str, Any], int | None]:
        """Lend the block that was last allocated.

        Returns:
            Fields for `Borrower.borrow`, to be sent with the answer, and the file descriptor if
            the pool does not have it yet. Call `sent` after sending.
        """
        block = self._current
        if block is None:
            raise ValueError("no block was allocated")
        kept = len(self._lent) + len(self._free) < _KEPT_BLOCKS and (
            len(block.memory) <= _KEPT_BYTES
        )
        fields = {"block": block.number, "kept": kept, "dropped": self._dropped}
        self._dropped = []
        if kept:
            self._lent[block.number] = block
        return fields, block.descriptor

    def sent(self) -> None:
        """Close the descriptor of the lent block, which the pool has now."""
        block, self._current = self._current, None
        if block is not None:
            _close(block)

    def keep_back(self) -> None:
        """Free the block that was last allocated, if it was not lent."""
        block, self._current = self._current, None
        if block is None:
            return
        if block.descriptor is None:
            self._free[block.number] = block
        else:
            _close(block)

    def _drop(self, block: _Block) -> None:
        del self._free[block.number]
        self._dropped.append(block.number)
        _close(block)


Pin = Callable[[mmap.mmap], Callable[[], None] | None]
"""Prepares memory for frames, e.g. page-locks it; returns what undoes that, if anything."""


class _Mapping:
    """The pool's mapping of a block, to which everything that reads the block refers."""

    def __init__(self, memory: mmap.mmap, pin: Pin | None) -> None:
        self.memory = memory
        if pin is not None and (release := pin(memory)) is not None:
            # As an argument, the memory stays mapped until it is released.
            weakref.finalize(self, _release, release, memory).atexit = False


def _release(release: Callable[[], None], _: mmap.mmap) -> None:
    release()


class Borrower:
    """The pool's side of the blocks of one worker process.

    Args:
        pin: Called with each block that is kept for reuse.
    """

    def __init__(self, pin: Pin | None = None) -> None:
        self._pin = pin
        self._blocks: dict[int, _Mapping] = {}
        self._back: queue.SimpleQueue[int] = queue.SimpleQueue()

    def borrow(self, fields: dict[str, Any], descriptor: int | None, *, size: int) -> Any:
        """The bytes of the block that an answer refers to.

        Args:
            fields: From `Lender.lend`.
            descriptor: The descriptor received, which the caller closes.
            size: Number of bytes.

        Returns:
            An object with the buffer protocol. The block counts as given back when the object
            and all arrays on it are garbage-collected.
        """
        import ctypes

        for number in fields["dropped"]:
            self._blocks.pop(number, None)
        number = fields["block"]
        block = self._blocks.get(number)
        if descriptor is not None:
            memory = mmap.mmap(descriptor, 0, flags=_FLAGS)
            block = _Mapping(memory, self._pin if fields["kept"] else None)
            if fields["kept"]:
                self._blocks[number] = block
        if block is None:
            raise EOFError(f"block {number} was never received")
        # One object per loan, to which all arrays on the memory refer.
        loan = (ctypes.c_ubyte * size).from_buffer(block.memory)
        loan.mapping = block  # type: ignore[attr-defined]
        if fields["kept"]:
            weakref.finalize(loan, self._back.put, number).atexit = False
        return loan

    def given_back(self) -> list[int]:
        """Numbers of the blocks given back since the last call."""
        numbers = []
        with contextlib.suppress(queue.Empty):
            while True:
                numbers.append(self._back.get_nowait())
        return numbers


def _new_block(number: int, size: int) -> _Block:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("coinml-clips")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size, flags=_FLAGS)
    except BaseException:
        os.close(descriptor)
        raise
    return _Block(number, memory, descriptor)


def _close(block: _Block) -> None:
    if block.descriptor is not None:
        os.close(block.descriptor)
        block.descriptor = None
