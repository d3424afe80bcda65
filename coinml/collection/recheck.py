"""Comparing the files on disk with the ledger."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coinml.errors import LocalError
from coinml.ledger import DOWNLOADED, Ledger, LedgerRow

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecheckReport:
    """The result of comparing a dataset's files with the ledger.

    Attributes:
        unchanged: Number of unchanged files.
        missing: Ids whose file is missing.
        altered: Ids whose file has changed content.
    """

    unchanged: int = 0
    missing: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.unchanged:,} files are unchanged, {len(self.missing):,} missing and "
            f"{len(self.altered):,} altered"
        )


def recheck(
    ledger: Ledger,
    dataset: str,
    *,
    deep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RecheckReport:
    """Compare the files of a dataset with the ledger and make videos whose files differ due again.

    A file of another size is altered; one of the same size is read only if its modification time
    differs. An altered file is moved to quarantine, unless it is the user's own.

    Args:
        ledger: The ledger.
        dataset: Name of the dataset.
        deep: Read every file, even where the modification time is unchanged.
        progress: Called after each file with the number done and the number of files.

    Raises:
        LocalError: A file cannot be read.
    """
    missing: list[str] = []
    altered: list[str] = []
    rows = ledger.rows(dataset, state=DOWNLOADED)
    for done, row in enumerate(rows, start=1):
        path = Path(row.path or "")
        if row.path is None or not path.is_file():
            missing.append(row.video_id)
            # The message says why a row's path was not taken.
            ledger.forget(dataset, row.video_id, row.message or "its file is missing")
        elif _is_altered(row, path, deep=deep):
            altered.append(row.video_id)
            ledger.forget(dataset, row.video_id, "its file was altered")
            if row.origin != "in_place":
                aside = path.parent / ".quarantine"
                aside.mkdir(exist_ok=True)
                path.replace(aside / path.name)
        if progress is not None:
            progress(done, len(rows))
    return RecheckReport(
        unchanged=len(rows) - len(missing) - len(altered),
        missing=tuple(missing),
        altered=tuple(altered),
    )


def _is_altered(row: LedgerRow, path: Path, *, deep: bool) -> bool:
    try:
        stat = path.stat()
        if stat.st_size != row.size_bytes:
            return True
        if not deep and stat.st_mtime_ns == row.mtime_ns:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() != row.sha256
    except OSError as err:
        raise LocalError(f"{path}: {err.strerror}") from err
