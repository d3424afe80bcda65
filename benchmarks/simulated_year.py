"""Sizes of all that grows in a home over a simulated year, with its upkeep every simulated day.

    python benchmarks/simulated_year.py --days 365

Real are the databases, and what works on them each day: `coinml gc`, Prefect's vacuum, and
`coinml backup`. Rows of Prefect's database and lines of logs are those of one hour of a real server
and worker, written again for every hour. Trainings log what a training logs, without fitting.
Prints each size once a simulated month, and fails if one is over its bound.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coinml.data.records import Dataset, Video
from coinml.faults.classification import Fault
from coinml.ledger import Attempt, FileFacts, Ledger
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import home_store
from coinml.upkeep.gc import collect_garbage
from coinml.upkeep.gc_options import GcOptions
from coinml_ops.upkeep.backup import back_up
from tests.helpers.hourly_prefect import IdleHour, idle_hour, vacuum
from tests.helpers.hourly_runs import sweep_once, train_once

BOUNDS_MB = {
    "ledger": 40,
    "MLflow's database": 60,
    "artifacts": 100,
    "Prefect's database": 150,
    "logs": 250,
    "30 daily copies": 4000,
}
"""What each size must stay under over a year, in MB."""
VIDEOS, GONE, A_DAY = 11_827, 0.4, 7_200
"""COIN's videos, the share of them that is gone, and how many are asked for in a day."""
BUSY_DAYS, BUSY_HEADS = 2, 48
"""While videos come, two heads an hour are trained."""
RUNS_A_DAY = 28
"""24 collections; the nightly retention and download of what changed; and two trainings."""
TOLD = (
    "ERROR: [youtube] {id}: Video unavailable. This video is no longer available because the "
    "YouTube account associated with this video has been terminated."
)


def simulate(
    folder: Path,
    hour: IdleHour,
    *,
    days: int,
    heads_a_day: int = 2,
    model_mb: float = 1.7,
    videos: int = VIDEOS,
    every: int = 30,
) -> Iterator[tuple[int, dict[str, float]]]:
    """Live in a new home; yields the day and the sizes in MB, every so many days and at the end."""
    settings = Settings(home=folder / "home")
    copies = folder / "copies"
    prefect = settings.data_dir / "prefect" / "prefect.db"
    prefect.parent.mkdir(parents=True)
    hour.database.rename(prefect)
    settings.logs_dir.mkdir()
    store = home_store(settings)
    with Ledger.of(settings) as ledger:
        _register(ledger, videos)
        start = datetime.now(UTC) - timedelta(days=days + 1)
        for day in range(1, days + 1):
            morning = start + timedelta(days=day)
            with closing(sqlite3.connect(prefect)) as connection, connection:
                for number in range(RUNS_A_DAY):
                    hour.write(connection, morning + timedelta(days=number / RUNS_A_DAY))
            vacuum(prefect, now=morning + timedelta(days=1))
            for name, size_bytes in hour.log_bytes.items():
                with (settings.logs_dir / name).open("ab") as log:
                    log.write(b"x" * (size_bytes * RUNS_A_DAY))
            _collect(settings, ledger, day, videos)
            busy = day <= BUSY_DAYS and videos == VIDEOS
            for number in range(BUSY_HEADS if busy else heads_a_day):
                head = ("mlp", "svm")[number % 2]
                train_once(store, folder / "staged", head=head, model_bytes=int(model_mb * 1e6))
            if day % 7 == 0:
                sweep_once(store, trials=10)
            collect_garbage(settings, store, GcOptions(min_age_days=0), delete=True)
            back_up(settings, str(copies), keep=30)
            if day % every == 0 or day == days:
                yield day, _sizes(settings, copies)


def _register(ledger: Ledger, videos: int) -> None:
    ledger.register(
        Dataset(
            name="coin",
            videos=tuple(
                Video(video_id=f"video{n:06d}", label="A", subset="training", split="train")
                for n in range(videos)
            ),
        )
    )


def _collect(settings: Settings, ledger: Ledger, day: int, videos: int) -> None:
    """All are asked for in the first two days; those that are gone, once a month again."""
    for number in range((day - 1) * A_DAY, min(day * A_DAY, videos)):
        one = f"video{number:06d}"
        attempt = Attempt(run_id=f"run-{day}", started_at=datetime.now(UTC))
        if number < GONE * videos:
            ledger.record_fault(
                "coin",
                one,
                fault=Fault.GONE,
                message=TOLD.format(id=one),
                next_attempt_at=None,
                attempt=attempt,
            )
        else:
            path = f"/srv/coinml/data/videos/coin/{one}.mp4"
            facts = FileFacts(path=path, size_bytes=number, sha256=f"{number:064d}")
            ledger.record_success("coin", one, file=facts, attempt=attempt)
    if day % 30 == 0:
        with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as connection, connection:
            columns = "dataset, video_id, started_at, seconds, outcome, message"
            connection.execute(
                f"INSERT INTO attempts (run_id, {columns}) SELECT ?, {columns} FROM attempts "
                "WHERE run_id = 'run-1' AND outcome = ?",
                (f"run-{day}", str(Fault.GONE)),
            )


def _sizes(settings: Settings, copies: Path) -> dict[str, float]:
    return {
        "ledger": _mb(settings.data_dir.glob("ledger.db*")),
        "MLflow's database": _mb(settings.home.glob("mlflow.db*")),
        "artifacts": _mb(settings.artifact_root.rglob("*")),
        "Prefect's database": _mb((settings.data_dir / "prefect").glob("prefect.db*")),
        "logs": _mb(settings.logs_dir.glob("*")),
        "30 daily copies": _mb(copies.rglob("*")),
    }


def _mb(paths: Iterator[Path]) -> float:
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def main() -> int:
    """Run the simulation; 1 if a size is over its bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=45)
    parser.add_argument("--heads-a-day", type=int, default=2)
    parser.add_argument("--model-mb", type=float, default=1.7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coinml-year-") as folder:
        hour = idle_hour(Path(folder) / "hour")
        rows = sum(len(rows) for _, rows in hour.rows.values())
        print(f"an hour: {rows} rows in Prefect's database, {hour.log_bytes} bytes in logs")
        print("day  " + "  ".join(BOUNDS_MB) + "  (MB)", flush=True)
        began = time.process_time()
        over = set()
        for day, sizes in simulate(
            Path(folder) / "year",
            hour,
            days=options.days,
            heads_a_day=options.heads_a_day,
            model_mb=options.model_mb,
        ):
            figures = "  ".join(f"{sizes[name]:{len(name)}.1f}" for name in BOUNDS_MB)
            print(f"{day:3}  {figures}  {time.process_time() - began:6.0f} CPU s", flush=True)
            over |= {name for name, bound in BOUNDS_MB.items() if sizes[name] > bound}
    print(f"bounds: {BOUNDS_MB}; over: {', '.join(sorted(over)) or 'none'}")
    return bool(over)


if __name__ == "__main__":
    os.environ.setdefault("DO_NOT_TRACK", "true")
    sys.exit(main())
