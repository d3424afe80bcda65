"""Copying a home to a folder or bucket, while it is in use.

Databases are copied first and files afterwards: whatever the copied ledger or MLflow knows of is
in the copy, and files that came later are found and recorded again by the next run.
"""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.settings import Settings
from coinml.runtime.sqlite_files import copy_database, is_sqlite
from coinml_ops.home_databases import check_database
from coinml_ops.upkeep.chunk_store import ChunkStore, chunks_of
from coinml_ops.upkeep.home_files import DATABASES, PARTS, Home, HomeFile

FORMAT = 1
_THREADS = 8
_SCANS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedFile:
    """A file of a copy.

    Attributes:
        part: One of `PARTS`.
        name: Its path in the copy.
        size_bytes: Its size.
        mtime_ns: Its modification time in nanoseconds since the epoch.
        mode: Its permissions.
        chunks: Digests of its chunks, in order.
    """

    part: str
    name: str
    size_bytes: int
    mtime_ns: int
    mode: int
    chunks: tuple[str, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CopiedFile:
        """Read what `asdict` made."""
        return cls(**{**values, "chunks": tuple(values["chunks"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupReport:
    """A finished copy.

    Attributes:
        snapshot: Its name.
        files: Number of files in it, by part.
        size_bytes: Their size.
        written_bytes: What had to be written, since it was not there from earlier copies.
        removed: Older copies that were removed.
        left_out: What of this home is elsewhere and not in the copy, as texts for people.
    """

    snapshot: str
    files: Mapping[str, int]
    size_bytes: int
    written_bytes: int
    removed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def back_up(
    settings: Settings,
    url: str,
    *,
    without: Sequence[str] = (),
    keep: int | None = None,
    on_file: Callable[[str], None] = lambda _name: None,
) -> BackupReport:
    """Copy a home; what earlier copies at this place have is not written again.

    It may run while the home is in use, and may be killed: a copy counts once its snapshot is
    written, which is last. Every chunk that is written is read back.

    Args:
        settings: The home's.
        url: Folder or fsspec URL of the copies.
        without: Parts to leave out.
        keep: Number of copies to keep, this one included; None keeps all.
        on_file: Called with the name of each file that is copied.

    Raises:
        InvalidInputError: No such part, or the place is inside the home's data.
        LocalError: A database is damaged, or the place cannot be written.
    """
    from filelock import FileLock, Timeout

    wanted = [part for part in PARTS if part not in checked_parts(without)]
    home, store = Home(settings=settings), ChunkStore(url)
    _check_outside(home, store)
    for name in DATABASES:
        if (path := home.database(name)) is not None and name in wanted:
            check_database(path, name)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(settings.data_dir / "backup.lock", timeout=0):
            return _back_up(home, store, wanted, keep=keep, on_file=on_file)
    except Timeout:
        raise InvalidInputError("another backup of this home is in progress") from None


def checked_parts(names: Sequence[str]) -> Sequence[str]:
    """The names, all of which are parts.

    Raises:
        InvalidInputError: One is none.
    """
    for name in names:
        if name not in PARTS:
            raise InvalidInputError(f"no part {name!r} of a home; there are: {', '.join(PARTS)}")
    return names


def _back_up(
    home: Home,
    store: ChunkStore,
    wanted: Sequence[str],
    *,
    keep: int | None,
    on_file: Callable[[str], None],
) -> BackupReport:
    store.make_private()
    earlier = _latest_files(store)
    copying = _Copying(store, earlier, on_file)
    # Databases first, see above.
    for part in wanted:
        copying.copy_part(home, part)
    files = sorted(copying.files.values(), key=lambda file: file.name)
    now = datetime.now(UTC)
    name = now.strftime("%Y%m%dT%H%M%S.%fZ")
    _check_stored(store, files)
    store.write_snapshot(
        name,
        {
            "format": FORMAT,
            "made_at": now.isoformat(),
            "home": str(home.settings.home),
            "parts": list(wanted),
            "files": [asdict(file) for file in files],
        },
    )
    removed = () if keep is None else prune(store, keep)
    return BackupReport(
        snapshot=name,
        files={part: sum(file.part == part for file in files) for part in wanted},
        size_bytes=sum(file.size_bytes for file in files),
        written_bytes=copying.written_bytes,
        removed=removed,
        left_out=tuple(_left_out(home, wanted)),
    )


class _Copying:
    """Copies parts of a home, and collects what the snapshot says of them."""

    def __init__(
        self,
        store: ChunkStore,
        earlier: Mapping[str, CopiedFile],
        on_file: Callable[[str], None],
    ) -> None:
        self._store = store
        self._earlier = earlier
        self._on_file = on_file
        self.files: dict[str, CopiedFile] = {}
        self.written_bytes = 0

    def copy_part(self, home: Home, part: str) -> None:
        # A file that disappears is of a set that is being compacted: its rows are in a new one.
        for _ in range(_SCANS):
            found = [one for one in home.files(part) if one.name not in self.files]
            with ThreadPoolExecutor(_THREADS) as pool:
                copied = list(pool.map(self._copy, found))
            for file, written in filter(None, copied):
                self.files[file.name] = file
                self.written_bytes += written
            if None not in copied:
                return
        raise LocalError(f"{part}: files disappear while they are copied; try again")

    def _copy(self, file: HomeFile) -> tuple[CopiedFile, int] | None:
        try:
            found = file.path.stat()
            known = self._earlier.get(file.name)
            if known is not None and self._is_unchanged(known, found.st_size, found.st_mtime_ns):
                return known, 0
            self._on_file(file.name)
            if file.path.suffix == ".db" and is_sqlite(file.path):
                with tempfile.TemporaryDirectory(prefix="coinml-backup-") as folder:
                    copy = Path(folder) / file.path.name
                    copy_database(file.path, copy)
                    chunks, size_bytes, written = self._store_file(copy)
                # Its time says nothing: it is in use, and a log may hold what is newest.
                mtime_ns = 0
            else:
                chunks, size_bytes, written = self._store_file(file.path)
                mtime_ns = found.st_mtime_ns
        except FileNotFoundError:
            return None
        except OSError as err:
            raise LocalError(f"{file.path}: {err.strerror or err}") from err
        copied = CopiedFile(
            part=file.part,
            name=file.name,
            size_bytes=size_bytes,
            mtime_ns=mtime_ns,
            mode=stat.S_IMODE(found.st_mode),
            chunks=chunks,
        )
        return copied, written

    def _is_unchanged(self, known: CopiedFile, size_bytes: int, mtime_ns: int) -> bool:
        return (known.size_bytes, known.mtime_ns) == (size_bytes, mtime_ns) and all(
            digest in self._store.sizes() for digest in known.chunks
        )

    def _store_file(self, path: Path) -> tuple[tuple[str, ...], int, int]:
        digests, size_bytes, written = [], 0, 0
        with path.open("rb") as content:
            for chunk in chunks_of(content):
                digest, new_bytes = self._store.put(chunk)
                digests.append(digest)
                size_bytes += len(chunk)
                written += new_bytes
        return tuple(digests), size_bytes, written


def files_of(snapshot: Mapping[str, Any]) -> list[CopiedFile]:
    """The files of a snapshot.

    Raises:
        LocalError: A newer coinml has written it.
    """
    if snapshot.get("format") != FORMAT:
        raise LocalError(
            f"the copy has format {snapshot.get('format')!r}, and this coinml reads {FORMAT}: "
            "use the version that made it"
        )
    return [CopiedFile.from_dict(one) for one in snapshot["files"]]


def prune(store: ChunkStore, keep: int) -> tuple[str, ...]:
    """Remove all but the latest copies, with the chunks that no other copy has.

    Args:
        store: The place.
        keep: Number of copies to keep, at least 1.

    Returns:
        Names of those that were removed.

    Raises:
        LocalError: The place cannot be read or written.
    """
    names = store.snapshot_names()
    kept, removed = names[-keep:], names[:-keep]
    if not removed:
        return ()
    needed = _chunks(files_of(store.read_snapshot(name)) for name in kept)
    for name in removed:
        store.remove_snapshot(name)
    store.remove_chunks(store.list_sizes().keys() - needed)
    return tuple(removed)


def check_copy(store: ChunkStore, name: str) -> int:
    """Read all chunks of a copy and compare their digests.

    Returns:
        Their size in bytes.

    Raises:
        LocalError: One is missing or damaged.
    """
    digests = sorted(_chunks([files_of(store.read_snapshot(name))]))
    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(lambda digest: len(store.get(digest)), digests))


def _chunks(snapshots: Iterable[Iterable[CopiedFile]]) -> set[str]:
    return {digest for files in snapshots for file in files for digest in file.chunks}


def _latest_files(store: ChunkStore) -> dict[str, CopiedFile]:
    names = store.snapshot_names()
    if not names:
        return {}
    return {file.name: file for file in files_of(store.read_snapshot(names[-1]))}


def _check_stored(store: ChunkStore, files: Sequence[CopiedFile]) -> None:
    missing = _chunks([files]) - store.list_sizes().keys()
    if missing:
        raise LocalError(
            f"{len(missing)} chunks of this copy are no longer at {store!r}: another process "
            "removes copies there; try again"
        )


def _check_outside(home: Home, store: ChunkStore) -> None:
    from coinml.embedding_sets.places import is_local

    if not is_local(store.filesystem):
        return
    place = Path(store.path).resolve()
    for part in PARTS:
        if part not in DATABASES and (folder := home.folder(part)) is not None:
            inside = folder.resolve()
            if place == inside or place.is_relative_to(inside):
                raise InvalidInputError(
                    f"{place}: is below {inside}, which is copied; name another disk or machine"
                )


def _left_out(home: Home, wanted: Sequence[str]) -> Iterator[str]:
    if "ledger" in wanted and home.database("ledger") is None:
        yield f"the ledger at {home.settings.ledger_url}: use pg_dump"
    if "embeddings" in wanted and home.folder("embeddings") is None:
        yield f"the embedding sets at {home.settings.embeddings_root}: they are in a bucket"
    if home.settings.tracking_uri.startswith(("http:", "https:", "postgresql")):
        yield f"the runs at {home.settings.tracking_uri}: back up that server"
