"""What a home takes on the disk, and how long the free space will last."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from coinml.errors import CoinmlError
from coinml.runtime.settings import Settings

RESERVE_BYTES = 5 * 2**30
"""The disk counts as low when less than this will be left."""

HORIZON_DAYS = 14.0
_WINDOW_DAYS = 7.0
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskForecast:
    """The free space, and what will take it.

    Attributes:
        free_bytes: Free space of the disk with the home's data.
        videos_bytes: Expected size of the videos that may still be downloaded.
        bytes_per_day: What everything else was written at, per day of the last week. What
            `coinml gc` will remove of it is not subtracted.
        sizes_bytes: Size of each part of the home: `artifacts`, `databases`, `embeddings`, `logs`.
            Without the videos, which are many files.
    """

    free_bytes: int
    videos_bytes: float
    bytes_per_day: float
    sizes_bytes: Mapping[str, int]

    @property
    def days_left(self) -> float | None:
        """Days until the disk is full, all videos being there; None: not at this rate."""
        left = max(0.0, self.free_bytes - self.videos_bytes)
        return left / self.bytes_per_day if self.bytes_per_day > 0 else None

    @property
    def low(self) -> bool:
        """Whether less than `RESERVE_BYTES` will be free in two weeks, with all videos."""
        needed = self.videos_bytes + HORIZON_DAYS * self.bytes_per_day
        return self.free_bytes - needed < RESERVE_BYTES

    def __str__(self) -> str:
        """One line for people."""
        text = f"{self.free_bytes / 2**30:.1f} GiB free"
        if self.videos_bytes:
            text += f", {self.videos_bytes / 2**30:.1f} GiB of videos still to come"
        days = self.days_left
        if days is not None and days < 365:
            text += (
                f", all else grows by {self.bytes_per_day / 2**30:.2f} GiB a day: "
                f"full in {days:.0f} days"
            )
        return text


def forecast_disk(settings: Settings, *, now_s: float | None = None) -> DiskForecast:
    """Measure a home and forecast its disk.

    Args:
        settings: Whose home.
        now_s: Seconds since the epoch; None: the current time.

    Raises:
        OSError: The disk cannot be read.
    """
    now_s = time.time() if now_s is None else now_s
    files = {
        "artifacts": [*_files(settings.artifact_root)],
        "embeddings": [*_files(settings.data_dir / "embeddings")],
        "logs": [*_files(settings.logs_dir)],
        "databases": [*_databases(settings)],
    }
    oldest_s = min((one.st_mtime for some in files.values() for one in some), default=now_s)
    age_days = max(1.0, (now_s - oldest_s) / _DAY_S)
    window_days = min(_WINDOW_DAYS, age_days)
    sizes = {name: sum(one.st_size for one in some) for name, some in files.items()}
    recent = sum(
        one.st_size
        for name in ("artifacts", "embeddings", "logs")
        for one in files[name]
        if one.st_mtime > now_s - window_days * _DAY_S
    )
    # A database is one file that changes all the time: its mean growth is all that can be said.
    per_day = recent / window_days + sizes["databases"] / age_days
    return DiskForecast(
        free_bytes=free_bytes(settings),
        videos_bytes=_still_to_come_bytes(settings),
        bytes_per_day=per_day,
        sizes_bytes=sizes,
    )


def free_bytes(settings: Settings) -> int:
    """Free space of the disk with a home's data.

    Raises:
        OSError: The disk cannot be read.
    """
    return shutil.disk_usage(data_place(settings)).free


def data_place(settings: Settings) -> Path:
    """The folder of a home's data, or the one in which it will be made."""
    place = settings.data_dir
    while not place.exists():
        place = place.parent
    return place


def _databases(settings: Settings) -> Iterator[os.stat_result]:
    below = (path for pattern in ("*.db*", "*/*.db*") for path in settings.data_dir.glob(pattern))
    for path in (*settings.home.glob("*.db*"), *below):
        if path.is_file():
            yield path.stat()


def _files(folder: Path) -> Iterator[os.stat_result]:
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.stat()
        except FileNotFoundError:
            # Another process has removed it.
            continue


def _still_to_come_bytes(settings: Settings) -> float:
    """Number of videos that may still come times their mean size so far; 0 if none is known."""
    from coinml.ledger import DOWNLOADED, Ledger
    from coinml.ledger.database import is_current

    # Opening an older ledger would migrate it.
    try:
        if not is_current(settings.ledger_url):
            return 0.0
    except CoinmlError:
        return 0.0
    coming = 0.0
    with Ledger.of(settings) as ledger:
        for dataset in ledger.datasets():
            rows = ledger.rows(dataset, state=DOWNLOADED)
            sizes = [row.size_bytes for row in rows if row.size_bytes]
            if sizes:
                coming += ledger.status(dataset).possible * sum(sizes) / len(sizes)
    return coming
