"""File access for embedding sets: a local folder, or any file system that fsspec knows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from coinml.errors import CoinmlError, InvalidInputError, LocalError
from coinml.runtime import atomic_files
from coinml.runtime.addresses import masked, plain

_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "r2", "hf"})


def filesystem_of(url: str, *, purpose: str = "embedding sets") -> tuple[Any, str]:
    """The fsspec file system of a folder or URL, and the path in it.

    Args:
        url: The folder or URL.
        purpose: What is to be there, for messages.

    Raises:
        InvalidInputError: The URL's protocol is unknown, or its driver is not installed.
        LocalError: The place cannot be reached.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(plain(url))
    except (ValueError, ImportError) as err:
        hint = "; pip install 'coinml[s3]'" if str(url).startswith(("s3:", "s3a:")) else ""
        raise InvalidInputError(
            f"{masked(url)}: not a place for {purpose}: {masked(str(err))}{hint}"
        ) from err
    except Exception as err:
        # Some drivers connect at once, and raise the errors of their libraries.
        said = masked(str(err) or type(err).__name__)
        raise LocalError(f"{masked(url)}: cannot be reached: {said}") from err
    return filesystem, path.rstrip("/")


def is_local(filesystem: Any) -> bool:
    """Whether it is the local file system."""
    return "file" in _protocols(filesystem)


def make_folder(filesystem: Any, path: str) -> None:
    """Create a folder, except in a bucket."""
    # Buckets have no folders, and the driver would create a bucket of a mistyped name.
    if _BUCKETS.isdisjoint(_protocols(filesystem)):
        filesystem.makedirs(path, exist_ok=True)


def write_whole(filesystem: Any, path: str, content: Any) -> None:
    """Write a file (bytes or a buffer) that appears whole or not at all.

    An object in a bucket appears when its upload is complete.
    """
    if not is_local(filesystem):
        filesystem.pipe_file(path, bytes(content))
        return
    atomic_files.write_whole(Path(path), content)


def sizes_in(filesystem: Any, folder: str) -> dict[str, int]:
    """Size in bytes of each file in a folder, by name; none if there is no folder."""
    if is_local(filesystem):
        found = {}
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                # Another process may have removed it meanwhile.
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
    """Paths of the folders in a folder; none if there is no folder."""
    filesystem.invalidate_cache(folder)
    try:
        listed = filesystem.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [entry["name"].rstrip("/") for entry in listed if entry["type"] == "directory"]


def remove_file(filesystem: Any, path: str) -> bool:
    """Remove a file; False if another process has removed it."""
    try:
        filesystem.rm_file(path)
    except FileNotFoundError:
        return False
    return True


@contextmanager
def as_local_error(path: str, filesystem: Any = None) -> Iterator[None]:
    """Within it, errors of the file system become `LocalError`.

    Remote drivers raise the errors of their libraries (botocore's are not `OSError`), so for a
    remote `filesystem` every exception counts as one.
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
