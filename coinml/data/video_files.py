"""Which files of a folder are videos: the one rule for class folders and for `import`.

- A file is a video by its ending, at any depth.
- Hidden files and folders (`.name`) and those that systems and tools generate (`GENERATED`) are
  skipped and counted.
- A linked folder is read like any other. A folder is read once, so a link to one that is read
  anyway, or back to a folder above, is skipped and named.
- A link to a file that does not exist is a video whose file is missing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from coinml.data.names import listed
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.errors import InvalidInputError, LocalError

GENERATED = frozenset(
    {
        "__macosx",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@tmp",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)
"""Files and folders of file managers, NAS boxes, zip tools and file systems, in lower case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVideos:
    """What a folder has.

    Attributes:
        files: The video files, sorted; those whose link leads nowhere are among them.
        hidden: Names of the hidden and generated files and folders that were skipped.
        read_before: Linked folders that were skipped, since they are read under another name.
        lost_links: Links that lead nowhere and whose names have no video ending.
    """

    files: tuple[Path, ...]
    hidden: tuple[str, ...] = ()
    read_before: tuple[str, ...] = ()
    lost_links: tuple[str, ...] = ()

    def notes(self) -> tuple[str, ...]:
        """What was not read and why, a sentence each."""
        missing = [path.name for path in self.files if not path.exists()]
        return tuple(
            f"{what}: {len(names):,} ({listed(map(repr, dict.fromkeys(names)))})"
            for what, names in (
                ("hidden or generated files and folders that are skipped", self.hidden),
                ("linked folders that are skipped, since they are read anyway", self.read_before),
                ("links that lead nowhere and are skipped", self.lost_links),
                ("links to missing files, whose videos count as missing", missing),
            )
            if names
        )


def find_videos(folder: Path, *, inside: Sequence[str] | None = None) -> FoundVideos:
    """The video files below a folder.

    Args:
        folder: The folder.
        inside: Read only these folders in it; by default all of it.

    Raises:
        LocalError: A folder cannot be read.
    """
    starts = [folder] if inside is None else [folder / name for name in inside]
    return _Walk(folder).run(starts)


def class_folders(folder: Path) -> tuple[list[str], FoundVideos]:
    """The names of a dataset's class folders, sorted, and what is skipped beside them.

    Raises:
        InvalidInputError: There is no such folder.
        LocalError: The folder cannot be read.
    """
    if not folder.is_dir():
        what = "not a folder" if folder.exists() else "no such folder"
        raise InvalidInputError(f"{folder}: {what}; expected one folder per class in it")
    entries = [entry for entry in _entries(folder) if not entry.name.startswith("_")]
    seen = [entry for entry in entries if not is_hidden(entry.name)]
    return [entry.name for entry in seen if _kind(entry) == "folder"], FoundVideos(
        files=(),
        hidden=tuple(entry.name for entry in entries if is_hidden(entry.name)),
        lost_links=tuple(entry.name for entry in seen if _kind(entry) == "nowhere"),
    )


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is hidden or generated."""
    return name.startswith(".") or name.casefold() in GENERATED


@dataclass(slots=True)
class _Walk:
    """One reading of a folder; `seen` has the device and inode of each folder that was read."""

    top: Path
    files: list[Path] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    read_before: list[str] = field(default_factory=list)
    lost_links: list[str] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)

    def run(self, starts: Sequence[Path]) -> FoundVideos:
        if self.top not in starts:
            self.seen.add(_identity(self.top))
        # Links last: a folder is read under its own name before a link to it is met.
        links = [path for path in starts if path.is_symlink() and path != self.top]
        for path in starts:
            if path not in links:
                links += self._read(path)
        while links:
            links += self._read(links.pop(0))
        return FoundVideos(
            files=tuple(sorted(self.files)),
            hidden=tuple(self.hidden),
            read_before=tuple(self.read_before),
            lost_links=tuple(self.lost_links),
        )

    def _read(self, folder: Path) -> list[Path]:
        """Read a folder and those below it; returns the linked folders in it."""
        identity = _identity(folder)
        if identity in self.seen:
            self.read_before.append(folder.relative_to(self.top).as_posix())
            return []
        self.seen.add(identity)
        links: list[Path] = []
        for entry in _entries(folder):
            path, kind = folder / entry.name, _kind(entry)
            if is_hidden(entry.name):
                self.hidden.append(entry.name)
            elif kind == "folder" and entry.is_symlink():
                links.append(path)
            elif kind == "folder":
                links += self._read(path)
            elif kind != "other" and path.suffix.lower() in VIDEO_ENDINGS:
                self.files.append(path)
            elif kind == "nowhere":
                self.lost_links.append(entry.name)
        return links


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as err:
        raise LocalError(f"{folder}: cannot be read: {err.strerror}") from err


def _kind(entry: os.DirEntry[str]) -> Literal["folder", "file", "nowhere", "other"]:
    """What an entry is, or what its link leads to; "other" is a device or a pipe."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
    except OSError:
        # A link in a circle, or into a folder that this user may not read.
        return "nowhere"
    return "nowhere" if entry.is_symlink() and not Path(entry.path).exists() else "other"


def _identity(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino
