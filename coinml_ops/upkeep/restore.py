"""Bringing a home, or a part of it, back from a copy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.atomic_files import write_whole, written_whole
from coinml.runtime.settings import Settings
from coinml.runtime.sqlite_files import SIDE_FILES
from coinml_ops.upkeep.backup import CopiedFile, checked_parts, files_of
from coinml_ops.upkeep.chunk_store import ChunkStore, chunks_of
from coinml_ops.upkeep.home_files import DATABASES, PARTS, SET_ASIDE, Home
from coinml_ops.upkeep.move_home import move_chosen
from coinml_ops.upkeep.relocate import Move, relocate

_THREADS = 8
_MARK = "restoring"
"""File in `data/` while a home is being brought back: the name of the copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreReport:
    """What was brought back.

    Attributes:
        snapshot: Name of the copy.
        made_at: When it was made (ISO 8601, UTC).
        files: Number of files of the copy, by part.
        written: Number of those that were missing or different.
        written_bytes: Their size.
        set_aside: Paths to which different files were renamed.
        moved_from: The home of which the copy is, if it was another folder.
    """

    snapshot: str
    made_at: str
    files: Mapping[str, int]
    written: int
    written_bytes: int
    set_aside: tuple[str, ...]
    moved_from: str | None


def restore(
    settings: Settings,
    url: str,
    *,
    snapshot: str | None = None,
    only: Sequence[str] = (),
    on_file: Callable[[str], None] = lambda _name: None,
) -> RestoreReport:
    """Bring back a home that is gone, or the named parts of one.

    Files that are there with the content of the copy stay; others of the same name are renamed and
    not overwritten. Databases come last, so that a home that is half restored has none; the next
    call continues. Nobody may use the home meanwhile.

    Args:
        settings: The home to restore.
        url: Folder or fsspec URL of the copies.
        snapshot: Name of the copy; None: the latest.
        only: The parts to bring back; none named: all.
        on_file: Called with the name of each file that is written.

    Raises:
        InvalidInputError: No such copy or part; or the home has databases and no part is named.
        LocalError: The copy is damaged or cannot be reached, or the home cannot be written.
    """
    from sqlalchemy.exc import SQLAlchemyError

    home, store = Home(settings=settings), ChunkStore(url)
    names = store.snapshot_names()
    if not names:
        raise InvalidInputError(f"no copy at {store!r}; `coinml backup` makes one")
    name = snapshot or names[-1]
    read = store.read_snapshot(name)
    copied = files_of(read)
    wanted = [part for part in PARTS if part in (checked_parts(only) or PARTS)]
    if missing := [part for part in only if part not in read["parts"]]:
        raise InvalidInputError(f"the copy {name} was made without {', '.join(missing)}")
    mark = settings.data_dir / _MARK
    if not only:
        _check_empty(home, mark, name)
    files = [file for file in copied if file.part in wanted]
    places = {file.name: home.place(file.part, file.name) for file in files}
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not only:
            write_whole(mark, name)
        restoring = _Restoring(store, on_file, before=read)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(
                pool.map(
                    lambda file: restoring.bring_back(file, places[file.name]),
                    [file for file in files if file.part not in DATABASES],
                )
            )
        if "settings" in wanted:
            move_chosen(settings.data_dir, Move(Path(read["home"]), settings.home))
        for file in files:
            if file.part in DATABASES:
                restoring.bring_back_database(file, places[file.name], settings.home)
        if not only:
            mark.unlink()
    except OSError as err:
        raise LocalError(f"{err.filename or settings.home}: {err.strerror or err}") from err
    except SQLAlchemyError as err:
        raise LocalError(f"a database of the copy {name} cannot be used: {err}") from err
    return RestoreReport(
        snapshot=name,
        made_at=read["made_at"],
        files={part: sum(file.part == part for file in files) for part in wanted},
        written=restoring.written,
        written_bytes=restoring.written_bytes,
        set_aside=tuple(sorted(map(str, restoring.set_aside))),
        moved_from=None if read["home"] == str(settings.home) else read["home"],
    )


def _check_empty(home: Home, mark: Path, name: str) -> None:
    if mark.is_file():
        begun = mark.read_text()
        if begun != name:
            raise InvalidInputError(
                f"{home.settings.home} is half restored from the copy {begun}: go on with "
                f"--snapshot {begun}, or empty the folder"
            )
        return
    there = [path for part in DATABASES if (path := home.database(part)) and path.exists()]
    if there:
        raise InvalidInputError(
            f"{home.settings.home} is in use as a home: it has {there[0]}. Name an empty folder as "
            f"COINML_HOME, or what is to be brought back with --only ({', '.join(PARTS)})"
        )


class _Restoring:
    """Writes files of a copy into a home."""

    def __init__(
        self, store: ChunkStore, on_file: Callable[[str], None], *, before: Mapping[str, Any]
    ) -> None:
        self._store = store
        self._on_file = on_file
        self._old_home = Path(before["home"])
        self._stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.written = self.written_bytes = 0
        self.set_aside: list[Path] = []

    def bring_back(self, file: CopiedFile, place: Path) -> None:
        if self._has(place, file):
            return
        if place.exists():
            self._put_aside(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(place) as partial:
            self._write(file, partial)
        self._count(file)

    def bring_back_database(self, file: CopiedFile, place: Path, home: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(place) as partial:
            self._write(file, partial)
            if home != self._old_home:
                relocate(f"sqlite:///{partial}", file.part, Move(self._old_home, home))
            for ending in SIDE_FILES:
                partial.with_name(partial.name + ending).unlink(missing_ok=True)
            if place.exists():
                self._put_aside(place)
        self._count(file)

    def _write(self, file: CopiedFile, path: Path) -> None:
        path.touch(mode=0o600)
        with path.open("wb") as content:
            for digest in file.chunks:
                content.write(self._store.get(digest))
        path.chmod(file.mode)
        if file.mtime_ns:
            os.utime(path, ns=(file.mtime_ns, file.mtime_ns))

    def _count(self, file: CopiedFile) -> None:
        self._on_file(file.name)
        self.written += 1
        self.written_bytes += file.size_bytes

    def _put_aside(self, place: Path) -> None:
        """Rename a file, with what SQLite keeps beside it, to a name that nothing reads."""
        for ending in ("", *SIDE_FILES):
            path = place.with_name(place.name + ending)
            aside = place.with_name(f"{place.name}{SET_ASIDE}{self._stamp}{ending}")
            if path.exists():
                path.rename(aside)
                if not ending:
                    self.set_aside.append(aside)

    @staticmethod
    def _has(place: Path, file: CopiedFile) -> bool:
        """Whether the file is there with this content; its time alone is not believed."""
        if not place.is_file() or place.stat().st_size != file.size_bytes:
            return False
        with place.open("rb") as content:
            found = tuple(hashlib.sha256(chunk).hexdigest() for chunk in chunks_of(content))
        return found == file.chunks
