"""Noticing that files changed behind the ledger's back."""

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
    """What became of the files that the ledger has.

    Attributes:
        unchanged: How many are as they were.
        missing: Ids whose file is gone.
        altered: Ids whose file has another content.
    """

    unchanged: int = 0
    missing: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()


def recheck(
    ledger: Ledger,
    dataset: str,
    *,
    deep: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> RecheckReport:
    """Compare the files of a dataset with the ledger, and have those that differ fetched again.

    A file of another size is another file; one of the same size is read only if its time of
    change differs. An altered file is put aside, unless it is the user's own.

    Args:
        ledger: Where the files are recorded.
        dataset: Its name there.
        deep: Read every file, whatever its time of change says.
        progress: Called after each file with how many are done and how many there are.

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
            ledger.forget(dataset, row.video_id, "its file is gone")
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
