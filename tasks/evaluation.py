"""Comparing two runs on the videos that both were evaluated on."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.ledger import Ledger
from coinml.runtime.settings import Settings
from coinml.tracking import compare_runs as tracking
from coinml.tracking.compare_runs import RunComparison
from coinml.tracking.mlflow_store import home_store
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    cache_policy=NO_CACHE,
)
def compare_runs(run_a: str, run_b: str) -> RunComparison:
    """Compare two runs with a paired test; logs table and figure to the second run."""
    settings = Settings()
    store = home_store(settings)
    with store.outages_as_transient(), Ledger.of(settings) as ledger:
        return tracking.compare_runs(store, run_a, run_b, ledger=ledger, record=True)
