"""Classifying new videos with a registered model."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.monitoring.options import ScoreOptions
from coinml.monitoring.run_scoring import ScoreReport, run_scoring
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import home_store
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    cache_policy=NO_CACHE,
)
def score_new(model: str, dataset: str, scoring: ScoreOptions) -> ScoreReport | None:
    """Classify what is new with a model's champion; None if it has none."""
    settings = Settings()
    store = home_store(settings)
    with store.outages_as_transient():
        return run_scoring(settings, store, model, dataset, scoring)
