"""Files that appear whole or not at all: written under another name, then renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PARTIAL_GLOB = ".*.partial*"
"""Matches what killed processes left behind in a folder."""


@contextmanager
def written_whole(path: Path, *, durable: bool = True, private: bool = False) -> Iterator[Path]:
    """Within it, the value is a path to write to; it becomes `path` when the block succeeds.

    It lies in the same folder, is hidden and has the same ending, and is removed if the block
    fails. `path` is replaced if it exists.

    Args:
        path: The file's final name.
        durable: Flush the file and its folder to the disk, so that it survives a power cut.
        private: Make it readable by its owner alone before anything is written.

    Raises:
        OSError: The file cannot be written.
    """
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")
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


def write_whole(path: Path, content: Any, *, durable: bool = True, private: bool = False) -> None:
    """Write a text (as UTF-8) or bytes-like content as `written_whole` does.

    Raises:
        OSError: The file cannot be written.
    """
    with (
        written_whole(path, durable=durable, private=private) as partial,
        partial.open("wb") as file,
    ):
        file.write(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
