"""Memory for decoded frames that a worker fills and its pool reads, used again and again.

The frames of one video are 90 MB. Memory that is new for each video costs a tenth of all the CPU
that decoding takes: its pages are cleared and mapped one by one, on both sides. So a worker keeps
a few blocks, lends one with each answer, and writes into it again once the pool has said that
nobody looks at it any more.
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
"""One to write to, and two that may be on loan meanwhile."""
_KEPT_BYTES = 256 << 20
"""Larger blocks are given away: they are rare, and idle memory is memory too."""
_SPARE_ROOM = 4
"""A block is not used for frames that fill less than one part of so many."""

_FLAGS = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
"""All pages at once: one by one, 90 MB are 22,000 faults on either side."""


@dataclass(slots=True, eq=False)
class _Block:
    """Some shared memory of a worker.

    Attributes:
        number: What both sides call it.
        memory: The worker's view of it.
        descriptor: Of its anonymous file, until the pool has it.
    """

    number: int
    memory: mmap.mmap
    descriptor: int | None


class Lender:
    """The worker's side: makes blocks, lends them, takes them back."""

    def __init__(self) -> None:
        self._free: dict[int, _Block] = {}
        self._lent: dict[int, _Block] = {}
        self._dropped: list[int] = []
        self._current: _Block | None = None
        self._made = 0

    def take_back(self, numbers: Iterable[int]) -> None:
        """Note that nobody looks at blocks any more."""
        for number in numbers:
            self._free[number] = self._lent.pop(number)

    def allocate(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A block for the frames of the next answer, uint8 of this shape."""
        import numpy as np

        self.keep_back()
        size = math.prod(shape)
        for block in list(self._free.values()):
            if not size <= len(block.memory) <= _SPARE_ROOM * size:
                self._drop(block)
        if self._free:
            self._current = self._free.pop(next(iter(self._free)))
        else:
            self._made += 1
            self._current = _new_block(self._made, size)
        return np.frombuffer(self._current.memory, dtype=np.uint8, count=size).reshape(shape)

    def lend(self) -> tuple[dict[str, Any], int | None]:
        """What to say of the block that was last allocated.

        Returns:
            Fields of the answer for `Borrower.borrow`, and its file descriptor where the pool
            has none; after sending it, `sent` is to be called.
        """
        block = self._current
        if block is None:
            raise ValueError("nothing was allocated")
        kept = len(self._lent) + len(self._free) < _KEPT_BLOCKS and (
            len(block.memory) <= _KEPT_BYTES
        )
        fields = {"block": block.number, "kept": kept, "dropped": self._dropped}
        self._dropped = []
        if kept:
            self._lent[block.number] = block
        return fields, block.descriptor

    def sent(self) -> None:
        """Note that the pool has the block that was lent."""
        block, self._current = self._current, None
        if block is not None:
            _close(block)

    def keep_back(self) -> None:
        """Note that the block that was last allocated is not needed for an answer."""
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
"""Prepares memory that frames will come in; gives what undoes that, if anything has to."""


class _Mapping:
    """A block as this process sees it; everything that reads it holds on to this."""

    def __init__(self, memory: mmap.mmap, pin: Pin | None) -> None:
        self.memory = memory
        if pin is not None and (release := pin(memory)) is not None:
            # The arguments keep the memory mapped until it is released.
            weakref.finalize(self, _release, release, memory).atexit = False


def _release(release: Callable[[], None], _: mmap.mmap) -> None:
    release()


class Borrower:
    """The pool's side of one worker process's blocks.

    Args:
        pin: Called with each block that will be used again and again.
    """

    def __init__(self, pin: Pin | None = None) -> None:
        self._pin = pin
        self._blocks: dict[int, _Mapping] = {}
        self._back: queue.SimpleQueue[int] = queue.SimpleQueue()

    def borrow(self, fields: dict[str, Any], descriptor: int | None, *, size: int) -> Any:
        """The bytes of a block that came with an answer.

        Args:
            fields: As from `Lender.lend`.
            descriptor: The one that came, which stays the caller's.
            size: Number of bytes.

        Returns:
            Something with the buffer protocol. When it and all arrays upon it are gone, the
            block counts as given back.
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
            raise EOFError(f"block {number} never came")
        # An object of its own for each loan, which whatever reads the memory must hold on to.
        loan = (ctypes.c_ubyte * size).from_buffer(block.memory)
        loan.mapping = block  # type: ignore[attr-defined]
        if fields["kept"]:
            weakref.finalize(loan, self._back.put, number).atexit = False
        return loan

    def given_back(self) -> list[int]:
        """The blocks that nobody has looked at since the last call."""
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
