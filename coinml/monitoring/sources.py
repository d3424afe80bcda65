"""The video files of a folder or bucket that are to be scored."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.data.video_files import GENERATED, find_videos
from coinml.embedding_sets.places import as_local_error, filesystem_of, is_local
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.addresses import masked


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file, and what says whether it has changed.

    Attributes:
        path: Below the folder, with `/` between its parts; bytes that are no UTF-8 are escaped.
        place: Where it is read.
        size_bytes: Its size.
        stamp: Changes with its content: time of the last change, or a bucket's tag of the content.
        age_s: Seconds since its last change; None where that is not known.
    """

    path: str
    place: str
    size_bytes: int
    stamp: str
    age_s: float | None


class ChangedFileError(LocalError):
    """A file changed while it was read, or is gone."""


class Source:
    """A folder or bucket of videos.

    Args:
        url: Folder or fsspec URL.

    Raises:
        InvalidInputError: The URL's protocol is unknown, or its driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._filesystem, self._root = filesystem_of(url, purpose="videos")
        self._local = is_local(self._filesystem)
        self.name = self._root if self._local else masked(url.rstrip("/"))

    def check(self) -> None:
        """Require that a folder of this machine exists; a bucket has no folders.

        Raises:
            InvalidInputError: There is none, or it is a file.
        """
        root = Path(self._root)
        if self._local and not root.is_dir():
            raise InvalidInputError(
                f"{self.name}: is a file; name its folder"
                if root.exists()
                else f"{self.name}: there is no such folder"
            )

    def files(self) -> list[SourceFile]:
        """The video files, sorted by path; none if there is no such folder.

        Raises:
            LocalError: The folder cannot be read.
        """
        if self._local:
            root = Path(self._root)
            if not root.is_dir():
                return []
            found = (self._of_path(path) for path in find_videos(root).files)
        else:
            self._filesystem.invalidate_cache()
            with as_local_error(self.name, self._filesystem):
                listed = self._filesystem.find(self._root, detail=True)
            found = (self._of_entry(path, entry) for path, entry in listed.items())
        return sorted((one for one in found if one is not None), key=lambda one: one.path)

    @contextmanager
    def opened(self, file: SourceFile) -> Iterator[tuple[Path, str]]:
        """A local path of a file's content and the hash of the content, while in the block.

        Raises:
            ChangedFileError: The file is gone or has changed.
            LocalError: It cannot be read.
        """
        if self._local:
            path = Path(file.place)
            sha256 = self._hash(path)
            if not self.is_unchanged(file):
                raise ChangedFileError(f"{file.path}: it changed while it was read")
            yield path, sha256
            return
        with TemporaryDirectory() as folder:
            path = Path(folder, f"video{PurePosixPath(file.path).suffix}")
            with as_local_error(f"{self.name}/{file.path}", self._filesystem):
                self._filesystem.get_file(file.place, str(path))
            if not self.is_unchanged(file):
                raise ChangedFileError(f"{file.path}: it changed while it was read")
            yield path, self._hash(path)

    def is_unchanged(self, file: SourceFile) -> bool:
        """Whether a file is as it was when it was listed.

        Raises:
            LocalError: The bucket cannot be asked.
        """
        if self._local:
            now = self._of_path(Path(file.place))
            return now is not None and (now.size_bytes, now.stamp) == (file.size_bytes, file.stamp)
        with as_local_error(self.name, self._filesystem):
            entry = self._filesystem.info(file.place)
        # Some drivers give other times here than in a listing; tags of the content are the same.
        tag = _tag(entry)
        return int(entry["size"] or 0) == file.size_bytes and tag in (None, file.stamp)

    def path_of(self, named: str) -> str:
        """The path below the folder of a file that somebody names, absolute or below the folder."""
        for start in (f"{self.name}/", f"{self._root}/"):
            if named.startswith(start):
                return named.removeprefix(start)
        return named.removeprefix("./")

    def _of_path(self, path: Path) -> SourceFile | None:
        try:
            stat = path.stat()
        except OSError:
            # It is gone, or a link that leads nowhere.
            return None
        return SourceFile(
            path=_text(path.relative_to(self._root).as_posix()),
            place=str(path),
            size_bytes=stat.st_size,
            stamp=str(stat.st_mtime_ns),
            age_s=time.time() - stat.st_mtime,
        )

    def _of_entry(self, path: str, entry: dict[str, Any]) -> SourceFile | None:
        inside = PurePosixPath(path).relative_to(self._root)
        skipped = any(part.startswith(".") or part.lower() in GENERATED for part in inside.parts)
        if skipped or inside.suffix.lower() not in VIDEO_ENDINGS or entry["type"] != "file":
            return None
        changed = next(
            (entry[key] for key in ("LastModified", "mtime", "updated", "created") if key in entry),
            None,
        )
        return SourceFile(
            path=_text(str(inside)),
            place=path,
            size_bytes=int(entry["size"] or 0),
            stamp=_tag(entry) or str(changed or ""),
            age_s=_age_s(changed),
        )

    def _hash(self, path: Path) -> str:
        try:
            with path.open("rb") as content:
                return hashlib.file_digest(content, "sha256").hexdigest()
        except FileNotFoundError as err:
            raise ChangedFileError(f"{path}: it is gone") from err
        except OSError as err:
            raise LocalError(f"{path}: cannot be read: {err.strerror}") from err


def _tag(entry: dict[str, Any]) -> str | None:
    tag = entry.get("ETag") or entry.get("etag")
    return str(tag).strip('"') if tag else None


def _age_s(changed: object) -> float | None:
    if isinstance(changed, datetime):
        return time.time() - changed.timestamp()
    if isinstance(changed, int | float):
        return time.time() - changed
    return None


def _text(path: str) -> str:
    return path.encode(errors="backslashreplace").decode()
