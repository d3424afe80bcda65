"""Atomic writes: a file or folder is written under a temporary name, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_GLOB = ".*.partial*"
"""Matches the temporary files that killed processes left in a folder."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""Errors by which a file system says that it has no hard links, as exFAT has none."""


def partial_path(path: Path) -> Path:
    """A new temporary path beside a file, with the same extension; matches `PARTIAL_GLOB`."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")


@contextmanager
def written_whole(path: Path, *, durable: bool = True, private: bool = False) -> Iterator[Path]:
    """A context with a temporary path to write to, which is renamed to `path` on success.

    The temporary file is hidden, in the same folder and with the same extension, and is removed
    if the block fails. An existing `path` is replaced.

    Args:
        path: The file's final name.
        durable: Flush the file and its folder to the disk, so that it survives a power cut.
        private: Readable by its owner only, before anything is written.

    Raises:
        OSError: The file cannot be written.
    """
    partial = partial_path(path)
    try:
        if private:
            partial.touch(mode=0o600, exist_ok=False)
        yield partial
        if durable:
            _sync(partial)
        partial.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A context with a temporary folder to write to, which is renamed to `path` on success.

    Its files are flushed to the disk before. The temporary folder is hidden, beside `path`, and is
    removed if the block fails.

    Args:
        path: The folder's final name, which is not taken.

    Raises:
        OSError: The folder cannot be written, or there is one that is not empty.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    partial.mkdir()
    try:
        yield partial
        for written in [*partial.rglob("*"), partial]:
            _sync(written)
        partial.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_whole(path: Path, content: Any, *, durable: bool = True, private: bool = False) -> None:
    """Write a string (as UTF-8) or bytes-like object atomically; see `written_whole`.

    Raises:
        OSError: The file cannot be written.
    """
    with (
        written_whole(path, durable=durable, private=private) as partial,
        partial.open("wb") as file,
    ):
        file.write(content.encode() if isinstance(content, str) else content)


def name_first(begun: Path, path: Path) -> None:
    """Give a finished file its final name, unless another process was faster: its file stays.

    Args:
        begun: The file, in the same file system; it may still be there afterwards.
        path: Its final name.

    Raises:
        OSError: The folder cannot be written.
    """
    try:
        # Unlike a rename, this replaces nothing.
        os.link(begun, path)
    except FileExistsError:
        return
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        from filelock import FileLock

        with FileLock(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                begun.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
