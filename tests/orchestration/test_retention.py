"""The flow that removes what a home needs no longer."""

from __future__ import annotations

from pathlib import Path

from coinml.tracking.mlflow_store import home_store
from coinml.upkeep.gc_options import GcOptions
from flows.retention import retention
from tests.helpers.hourly_runs import train_once


def test_the_flow_counts_first_and_removes_when_told(home: Path, tmp_path: Path) -> None:
    store = home_store()
    ids = [train_once(store, tmp_path / "x", model_bytes=1000) for _ in range(3)]
    options = GcOptions(keep=1, min_age_days=0)
    assert "could be removed: 1 run" in str(retention(options))
    assert store.has_run(ids[1])
    report = retention(options, delete=True)
    assert report.left_to_mlflow == 0
    assert [store.has_run(one) for one in ids] == [True, False, True]
    assert retention(options, delete=True).items == ()
