"""The folder of a dataset's video files, and the verification of a file."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coinml.collection.partial_file import PartialFile
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.errors import CorruptVideoError, LocalError
from coinml.ledger import FileFacts
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    from coinml.media import DecodePool

log = logging.getLogger(__name__)

_MIN_DEADLINE_S = 60.0

DURATION_TOLERANCE = 0.1
"""Relative difference allowed between a video's length and the annotated one."""

_MIN_TOLERANCE_S = 2.0
"""Difference allowed in any case: containers and annotators round."""


class VerdictLike(Protocol):
    """The result of a verification; see `coinml.media.Verdict`."""

    @property
    def verdict(self) -> str:
        """One of "ok", "damaged" and "unusable"."""

    @property
    def reason(self) -> str | None:
        """Why the verdict is not "ok"."""

    @property
    def duration_s(self) -> float | None:
        """Length of the video as decoded, in seconds."""


Verify = Callable[[Path], VerdictLike]
"""A full decode of a file."""


class VideoFolder:
    """The folder of a dataset's videos.

    It contains finished files as `<id>.<ext>`, unfinished ones in `.incoming` (on the same file
    system, so that a rename finishes a file), and files that do not decode in `.quarantine`.

    Args:
        folder: The folder of finished files; created when needed.
        min_free_bytes: The disk counts as full when less than this is free.
    """

    def __init__(self, folder: Path, *, min_free_bytes: int = 0) -> None:
        self.folder = folder
        self.incoming = folder / ".incoming"
        self.quarantine = folder / ".quarantine"
        self._min_free_bytes = min_free_bytes

    def check_room(self) -> None:
        """Create the folder and check the free disk space.

        Raises:
            LocalError: The folder cannot be created, or the disk is full.
        """
        try:
            self.incoming.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
        except OSError as err:
            raise LocalError(f"{self.folder}: {err.strerror}") from err
        if free < self._min_free_bytes:
            raise LocalError(
                f"{self.folder}: only {free / 1e6:.0f} MB are free on this disk, "
                f"{self._min_free_bytes / 1e6:.0f} MB are needed; free some space and start again"
            )

    def leftovers(self, video_id: str) -> Iterator[Path]:
        """Complete files of a video that an earlier run did not record."""
        for folder in (self.folder, self.incoming):
            for suffix in VIDEO_ENDINGS:
                path = folder / (video_id + suffix)
                if path.is_file():
                    yield path

    def put(self, path: Path, facts: FileFacts) -> FileFacts:
        """Move a verified file to its final name."""
        final = self.folder / path.name
        try:
            if path != final:
                path.replace(final)
        except OSError as err:
            raise LocalError(f"{final}: {err.strerror}") from err
        # What another source has begun of it, or a killed process has left.
        PartialFile(self.incoming, path.stem).drop()
        return replace(facts, path=str(final))

    def discard(self, path: Path) -> None:
        """Delete a bad file."""
        path.unlink(missing_ok=True)

    def put_aside(self, video_id: str, *, keep: bool) -> Path | None:
        """Remove the files of a video that does not decode, or keep one in quarantine.

        Returns:
            The path of the file that was kept, if any.
        """
        kept: Path | None = None
        for path in list(self.leftovers(video_id)):
            if keep and kept is None:
                self.quarantine.mkdir(exist_ok=True)
                kept = self.quarantine / path.name
                path.replace(kept)
            else:
                path.unlink(missing_ok=True)
        # The next attempt must not resume a partial file that may be bad.
        PartialFile(self.incoming, video_id).drop()
        return kept


def verified_facts(
    path: Path,
    *,
    verify: Verify | None = None,
    duration_s: float | None = None,
    tolerance: float | None = None,
) -> FileFacts:
    """Decode a file completely and return its facts for the ledger.

    Args:
        path: The file.
        verify: The decode; default: `coinml.media` in killable processes.
        duration_s: Annotated length in seconds; a longer video gets more time to decode.
        tolerance: Relative difference allowed from that length; None: any.

    Raises:
        CorruptVideoError: It does not decode completely, or has another length.
        LocalError: It cannot be read.
    """
    if verify is None:
        deadline_s = max(_MIN_DEADLINE_S, duration_s or 0.0)
        verdict: VerdictLike = _pool().check(path, deadline_s=deadline_s)
    else:
        verdict = verify(path)
    if verdict.verdict != "ok":
        raise CorruptVideoError(f"{verdict.verdict}: {verdict.reason or 'does not decode'}")
    if tolerance is not None and duration_s and verdict.duration_s is not None:
        allowed_s = max(_MIN_TOLERANCE_S, tolerance * duration_s)
        if abs(verdict.duration_s - duration_s) > allowed_s:
            raise CorruptVideoError(
                f"lasts {verdict.duration_s:.1f} s, but {duration_s:.1f} s by the annotations"
            )
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            stat = os.fstat(file.fileno())
    except OSError as err:
        raise LocalError(f"{path}: {err.strerror}") from err
    return FileFacts(
        path=str(path),
        size_bytes=stat.st_size,
        sha256=digest,
        mtime_ns=stat.st_mtime_ns,
        media_duration_s=verdict.duration_s,
        # A caller's own decode need not tell.
        short_side_px=getattr(verdict, "short_side_px", None),
    )


_pools: dict[int, DecodePool] = {}
_pools_lock = threading.Lock()


def _pool() -> DecodePool:
    """The decode pool shared by all collectors of this process, since workers start slowly."""
    with _pools_lock:
        pool = _pools.get(os.getpid())
        if pool is None:
            from coinml.media import DecodePool

            pool = _pools[os.getpid()] = DecodePool(workers=min(cpu_count(), 8))
            atexit.register(pool.close)
        return pool
