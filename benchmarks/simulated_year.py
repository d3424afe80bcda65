"""Sizes of a home over a year of trainings, with `coinml gc` every simulated day.

    python benchmarks/simulated_year.py --days 365 --heads-a-day 48 --model-mb 0.1

Prints, by day, bytes of MLflow's database and artifacts, with gc and (--without) without it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import home_store
from coinml.upkeep.gc import collect_garbage
from coinml.upkeep.gc_options import GcOptions
from tests.helpers.hourly_runs import sweep_once, train_once


def main() -> None:
    """Run the simulation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--heads-a-day", type=int, default=48)
    parser.add_argument("--model-mb", type=float, default=0.1)
    parser.add_argument("--without", action="store_true", help="Without gc.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coinml-year-") as folder:
        settings = Settings(home=Path(folder))
        store = home_store(settings)
        began = time.process_time()
        for day in range(1, options.days + 1):
            for number in range(options.heads_a_day):
                train_once(
                    store,
                    Path(folder) / "staged",
                    head=("mlp", "svm")[number % 2],
                    model_bytes=int(options.model_mb * 1e6),
                )
            if day % 7 == 0:
                sweep_once(store, trials=10)
            if not options.without:
                collect_garbage(settings, store, GcOptions(min_age_days=0), delete=True)
            if day in (1, 2, 4, 8) or day % 15 == 0 or day == options.days:
                database = (settings.home / "mlflow.db").stat().st_size
                artifacts = sum(
                    path.stat().st_size
                    for path in settings.artifact_root.rglob("*")
                    if path.is_file()
                )
                print(
                    f"day {day:3}: mlflow.db {database / 1e6:8.2f} MB, artifacts "
                    f"{artifacts / 1e6:8.2f} MB, {time.process_time() - began:7.1f} CPU s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
