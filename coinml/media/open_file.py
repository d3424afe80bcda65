"""A file that is opened once, by a process that may open it, and read by one that may not."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from coinml.errors import CorruptVideoError, InvalidInputError, LocalError

VideoPath = str | os.PathLike[str]
"""A path, or an `OpenFile`, which is its path and an open descriptor."""

_NO_SUCH_FILE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


class OpenFile(os.PathLike[str]):
    """An open file; as a path, only its name for messages.

    Args:
        path: How messages call it.
        descriptor: Open for reading. Its position is shared by all that read it, so it is read
            from its start by one reader at a time.
    """

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self.descriptor = descriptor

    def __fspath__(self) -> str:
        return self._path

    def __str__(self) -> str:
        return self._path


@contextmanager
def opened(path: VideoPath, *, shown: str | None = None) -> Iterator[OpenFile]:
    """A file open for reading; an `OpenFile` stays open afterwards.

    Args:
        path: The file.
        shown: How messages call it; by default its path.

    Raises:
        InvalidInputError: There is no such file.
        LocalError: This process may not read it, or has too many open files.
        CorruptVideoError: The disk does not give it.
    """
    if isinstance(path, OpenFile):
        yield path
        return
    name = shown or str(path)
    try:
        # A pipe without a writer must not block this process.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as err:
        raise InvalidInputError(f"{name!r}: is no path to a file") from err
    except OSError as err:
        if err.errno in _NO_SUCH_FILE:
            raise InvalidInputError(f"{name}: no such file") from err
        if err.errno in (errno.EACCES, errno.EPERM):
            raise LocalError(f"{name}: no permission to read it") from err
        if err.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise LocalError(f"{name}: {err.strerror}") from err
        raise CorruptVideoError(f"{name}: {err.strerror}") from err
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise InvalidInputError(f"{name}: no such file")
        os.set_blocking(descriptor, True)
        yield OpenFile(name, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def from_the_start(file: OpenFile) -> Iterator[None]:
    """Read a file from its start, and leave its position as it was."""
    at: int | None = None
    # A pipe has no position.
    with contextlib.suppress(OSError):
        at = os.lseek(file.descriptor, 0, os.SEEK_CUR)
        os.lseek(file.descriptor, 0, os.SEEK_SET)
    try:
        yield
    finally:
        if at is not None:
            os.lseek(file.descriptor, at, os.SEEK_SET)


def whole(file: OpenFile) -> bytes:
    """All bytes of a file."""
    with from_the_start(file), open(file.descriptor, "rb", closefd=False) as stream:
        return stream.read()
