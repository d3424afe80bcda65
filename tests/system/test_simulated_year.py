"""What grows in a home stays under its bound, and is flat once the upkeep has caught up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from benchmarks.simulated_year import BOUNDS_MB, simulate
from tests.helpers.hourly_prefect import EVENTS_KEPT, RUNS_KEPT, idle_hour

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(1800)]

DAYS = 45
FLAT = ("MLflow's database", "artifacts", "Prefect's database")
"""What no longer grows once runs and versions are let go; copies need another month."""
SETTLED = RUNS_KEPT.days + 8
"""Days after which as much is let go as is added, with a week for SQLite to reuse its pages."""


def test_sizes_are_flat_after_a_month(tmp_path: Path) -> None:
    hour = idle_hour(tmp_path / "hour")
    # Else the hour was no hour: the run, its tasks, states, logs, events and artifacts.
    assert {"flow_run", "task_run", "flow_run_state", "log", "events", "artifact"} <= set(hour.rows)
    sizes = dict(simulate(tmp_path / "year", hour, days=DAYS, videos=600, every=1))
    print({day: sizes[day] for day in (1, 10, 20, 30, SETTLED, DAYS)})
    for name in FLAT:
        assert sizes[DAYS][name] <= 1.05 * sizes[SETTLED][name], name
    for name, bound_mb in BOUNDS_MB.items():
        assert sizes[DAYS][name] <= bound_mb, name

    database = tmp_path / "year" / "home" / "data" / "prefect" / "prefect.db"
    with closing(sqlite3.connect(database)) as connection:
        for query, kept in (
            ("SELECT min(end_time) FROM flow_run", RUNS_KEPT),
            ("SELECT min(occurred) FROM events", EVENTS_KEPT),
            ("SELECT min(timestamp) FROM log", RUNS_KEPT),
        ):
            oldest = datetime.fromisoformat(connection.execute(query).fetchone()[0])
            age = datetime.now(UTC) - oldest.replace(tzinfo=UTC)
            assert age <= kept + timedelta(days=2), query
