"""A place for copies: files as chunks under the digest of their content, in any fsspec place.

What two files have in common is stored once, and a chunk never changes: a copy that is cut off
leaves whole chunks, and the next one continues.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Set
from typing import Any, BinaryIO

from coinml.embedding_sets.places import (
    as_local_error,
    filesystem_of,
    is_local,
    make_folder,
    remove_file,
    write_whole,
)
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.addresses import masked

CHUNK_BYTES = 8 * 2**20
"""A multiple of SQLite's pages: those that did not change make the same chunks again."""

_CHUNKS, _SNAPSHOTS = "chunks", "snapshots"
_ENDING = ".json.gz"


class ChunkStore:
    """Chunks and snapshots in a folder or at an fsspec URL.

    Args:
        url: The place.

    Raises:
        InvalidInputError: The URL's protocol is unknown, or its driver is not installed.
        LocalError: The place cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.filesystem, self.path = filesystem_of(url, purpose="copies")
        self._sizes: dict[str, int] | None = None
        self._folders: set[str] = set()

    def __repr__(self) -> str:
        return f"ChunkStore({masked(self.path)!r})"

    def sizes(self) -> dict[str, int]:
        """Stored size in bytes of each chunk, by digest; listed once."""
        if self._sizes is None:
            self._sizes = self.list_sizes()
        return self._sizes

    def list_sizes(self) -> dict[str, int]:
        """The same, listed now."""
        with as_local_error(self.path, self.filesystem):
            self.filesystem.invalidate_cache()
            found = self.filesystem.find(f"{self.path}/{_CHUNKS}", detail=True)
        return {
            name.rsplit("/", 1)[-1]: int(entry["size"] or 0)
            for name, entry in found.items()
            # Others are unfinished files of a copy that was cut off.
            if not name.rsplit("/", 1)[-1].startswith(".")
        }

    def put(self, content: bytes) -> tuple[str, int]:
        """Store a chunk unless it is there, and read it back.

        Returns:
            Its digest, and the number of bytes that were written.

        Raises:
            LocalError: It cannot be written, or another content comes back.
        """
        digest = hashlib.sha256(content).hexdigest()
        if self.sizes().get(digest) == len(content):
            return digest, 0
        place = self._place(digest)
        with as_local_error(place, self.filesystem):
            folder = place.rpartition("/")[0]
            if folder not in self._folders:
                make_folder(self.filesystem, folder)
                self._folders.add(folder)
            write_whole(self.filesystem, place, content)
        self.get(digest)
        self.sizes()[digest] = len(content)
        return digest, len(content)

    def get(self, digest: str) -> bytes:
        """A chunk's content.

        Raises:
            LocalError: It is missing, damaged or cannot be reached.
        """
        place = self._place(digest)
        with as_local_error(place, self.filesystem):
            content: bytes = self.filesystem.cat_file(place)
        if hashlib.sha256(content).hexdigest() != digest:
            raise LocalError(f"{masked(place)}: is damaged: its content has another digest")
        return content

    def remove_chunks(self, digests: Set[str]) -> None:
        """Remove chunks.

        Raises:
            LocalError: One cannot be removed.
        """
        for digest in digests:
            with as_local_error(self._place(digest), self.filesystem):
                remove_file(self.filesystem, self._place(digest))

    def snapshot_names(self) -> list[str]:
        """Names of the snapshots, the oldest first."""
        with as_local_error(self.path, self.filesystem):
            self.filesystem.invalidate_cache()
            try:
                listed = self.filesystem.ls(f"{self.path}/{_SNAPSHOTS}", detail=False)
            except FileNotFoundError:
                return []
        names = [str(one).rsplit("/", 1)[-1] for one in listed]
        return sorted(
            name.removesuffix(_ENDING)
            for name in names
            if name.endswith(_ENDING) and not name.startswith(".")
        )

    def write_snapshot(self, name: str, content: dict[str, Any]) -> None:
        """Write a snapshot under its final name, whole.

        Raises:
            LocalError: It cannot be written.
        """
        place = self._snapshot(name)
        with as_local_error(place, self.filesystem):
            make_folder(self.filesystem, f"{self.path}/{_SNAPSHOTS}")
            write_whole(self.filesystem, place, gzip.compress(json.dumps(content).encode()))

    def read_snapshot(self, name: str) -> dict[str, Any]:
        """A snapshot's content.

        Raises:
            InvalidInputError: There is no such snapshot.
            LocalError: It is damaged or cannot be reached.
        """
        place = self._snapshot(name)
        try:
            with as_local_error(place, self.filesystem):
                known = self.filesystem.exists(place)
                content = self.filesystem.cat_file(place) if known else b""
            if not known:
                listed = ", ".join(self.snapshot_names()) or "none"
                raise InvalidInputError(
                    f"no copy {name!r} at {masked(self.path)}; there are: {listed}"
                )
            read: dict[str, Any] = json.loads(gzip.decompress(content))
        except (OSError, EOFError, ValueError) as err:
            if isinstance(err, InvalidInputError):
                raise
            raise LocalError(f"{masked(place)}: is damaged: {err}") from err
        return read

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; its chunks stay.

        Raises:
            LocalError: It cannot be removed.
        """
        with as_local_error(self._snapshot(name), self.filesystem):
            remove_file(self.filesystem, self._snapshot(name))

    def make_private(self) -> None:
        """Let only the owner enter a local folder: copies contain passwords.

        Raises:
            LocalError: It cannot be created.
        """
        if is_local(self.filesystem):
            from pathlib import Path

            with as_local_error(self.path):
                Path(self.path).mkdir(parents=True, exist_ok=True)
                if not any(Path(self.path).iterdir()):
                    Path(self.path).chmod(0o700)

    def _place(self, digest: str) -> str:
        return f"{self.path}/{_CHUNKS}/{digest[:2]}/{digest}"

    def _snapshot(self, name: str) -> str:
        return f"{self.path}/{_SNAPSHOTS}/{name}{_ENDING}"


def chunks_of(file: BinaryIO) -> Iterator[bytes]:
    """A file's content in chunks; one empty chunk for an empty file is left out."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk
