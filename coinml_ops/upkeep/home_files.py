"""The files of a home that a copy contains, by part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from coinml.embedding_sets.places import filesystem_of, is_local
from coinml.errors import InvalidInputError
from coinml.runtime.atomic_files import PARTIAL_GLOB
from coinml.runtime.settings import Settings
from coinml.runtime.sqlite_files import SIDE_FILES
from coinml_ops.home_databases import LEDGER, MLFLOW, PREFECT, databases

DATABASES = (LEDGER, MLFLOW, PREFECT)
PARTS = (*DATABASES, "artifacts", "embeddings", "videos", "settings")
"""The parts of a home: its databases, and its folders. `settings` is all else below `data/`."""

_NOT_COPIED = frozenset({"cache", "locks", "logs", "restoring", "studies"})
"""Folders of `data/` that are made again, or are of no use in another place."""

SET_ASIDE = ".set-aside-"
"""In the name of a file that `restore` has replaced."""

_OWN_PART = frozenset({"embeddings", "videos", "prefect", "ledger.db"})
_OF_STACK = frozenset({"stack.json", "secrets.env"})


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeFile:
    """A file of a home.

    Attributes:
        part: One of `PARTS`.
        name: Its path in a copy, the same for every home.
        path: Where it is in this home.
    """

    part: str
    name: str
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where the parts of a home are.

    Attributes:
        settings: The home's.
    """

    settings: Settings

    def database(self, name: str) -> Path | None:
        """The file of a database; None for a ledger on a server."""
        if name == LEDGER:
            url = self.settings.ledger_url
            return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        return databases(self.settings.home)[name]

    def folder(self, part: str) -> Path | None:
        """The folder of a part that is one; None for sets in a bucket."""
        if part == "embeddings":
            filesystem, path = filesystem_of(self.settings.embeddings_root)
            return Path(path) if is_local(filesystem) else None
        return {
            "artifacts": self.settings.artifact_root,
            "videos": self.settings.data_dir / "videos",
            "settings": self.settings.data_dir,
        }[part]

    def place(self, part: str, name: str) -> Path:
        """Where a file of a copy belongs.

        Raises:
            InvalidInputError: The part is not in files here, or the name leads out of it.
        """
        where = self.database(part) if part in DATABASES else self.folder(part)
        if where is None:
            raise InvalidInputError(f"{part} of this home is not in files, so cannot be restored")
        if part in DATABASES:
            return where
        inside = Path(*Path(name).parts[1:])
        if inside.is_absolute() or ".." in inside.parts:
            raise InvalidInputError(f"the copy has a file {name!r}, which leads out of its part")
        return where / inside

    def files(self, part: str) -> Iterator[HomeFile]:
        """The files of a part, with names that are the same for every home."""
        if part in DATABASES:
            path = self.database(part)
            if path is not None and path.exists():
                yield HomeFile(part=part, name=f"{part}.db", path=path)
            return
        folder = self.folder(part)
        if folder is None:
            return
        for path in _walk(folder):
            inside = path.relative_to(folder)
            if part != "settings" or _is_setting(inside):
                yield HomeFile(part=part, name=f"{part}/{inside.as_posix()}", path=path)


def _is_setting(inside: Path) -> bool:
    top = inside.parts[0]
    if top == "stack":
        return inside.name in _OF_STACK
    return top not in _NOT_COPIED | _OWN_PART


def _walk(folder: Path) -> Iterator[Path]:
    """The finished files below a folder, in a fixed order; links to folders are followed once."""
    seen: set[str] = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(one for one in folders if one not in (".incoming", "__pycache__"))
        for name in sorted(names):
            path = Path(root, name)
            unfinished = path.match(PARTIAL_GLOB) or name.endswith((".lock", *SIDE_FILES))
            unfinished = unfinished or SET_ASIDE in name
            if not unfinished and path.is_file():
                yield path
