"""Where sets lie: a local folder or any place that fsspec knows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coinml.errors import CoinmlError, InvalidInputError, LocalError
from coinml.runtime import atomic_files

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")

_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "r2", "hf"})


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a folder or URL, and the path in it.

    Raises:
        InvalidInputError: There is no such kind of place, or its driver is not installed.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(str(url))
    except (ValueError, ImportError) as err:
        hint = "; pip install 'coinml[s3]'" if str(url).startswith(("s3:", "s3a:")) else ""
        raise InvalidInputError(
            f"{masked(url)}: not a place for embedding sets: {masked(str(err))}{hint}"
        ) from err
    return filesystem, path.rstrip("/")


def is_local(filesystem: Any) -> bool:
    """Whether paths in it are paths of this machine."""
    return "file" in _protocols(filesystem)


def make_folder(filesystem: Any, path: str) -> None:
    """Make a folder where folders are things of their own."""
    # A bucket needs none, and its driver would make a bucket of a mistyped name.
    if _BUCKETS.isdisjoint(_protocols(filesystem)):
        filesystem.makedirs(path, exist_ok=True)


def masked(url: str) -> str:
    """A URL, or a text with URLs, without the user and password that some of them bear."""
    return _CREDENTIALS.sub("***@", str(url))


def write_whole(filesystem: Any, path: str, content: Any) -> None:
    """Make a file appear with its content (bytes or a buffer) or not at all.

    In a bucket an object is there when the last byte of it has come, and not before.
    """
    if not is_local(filesystem):
        filesystem.pipe_file(path, bytes(content))
        return
    atomic_files.write_whole(Path(path), content)


def sizes_in(filesystem: Any, folder: str) -> dict[str, int]:
    """Bytes of each file in a folder, which may be missing."""
    if is_local(filesystem):
        found = {}
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                # Another process may remove it at this moment.
                with suppress(FileNotFoundError):
                    found[entry.name] = entry.stat().st_size
        return found
    filesystem.invalidate_cache(folder)
    try:
        listed = filesystem.ls(folder, detail=True)
    except FileNotFoundError:
        return {}
    return {entry["name"].rsplit("/", 1)[-1]: int(entry["size"] or 0) for entry in listed}


def folders_in(filesystem: Any, folder: str) -> list[str]:
    """Paths of the folders in a folder, which may be missing."""
    filesystem.invalidate_cache(folder)
    try:
        listed = filesystem.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry["name"].rstrip("/") for entry in listed if entry["type"] == "directory"]


def remove_file(filesystem: Any, path: str) -> bool:
    """Remove a file; False where another process was first."""
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def as_local_error(path: str, filesystem: Any = None) -> Iterator[None]:
    """What the file system refuses is this machine's fault.

    Drivers of remote places raise what their libraries raise (botocore's errors are no
    `OSError`), so that there everything is taken for a refusal.
    """
    remote = filesystem is not None and not is_local(filesystem)
    try:
        yield
    except CoinmlError:
        raise
    except OSError as err:
        raise LocalError(f"{masked(path)}: {masked(err.strerror or str(err))}") from err
    except Exception as err:
        if not remote:
            raise
        raise LocalError(f"{masked(path)}: {masked(str(err) or type(err).__name__)}") from err


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
