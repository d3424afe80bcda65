"""Letting go of what a home needs no longer."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import home_store
from coinml.upkeep.gc import GcReport, collect_garbage
from coinml.upkeep.gc_options import GcOptions
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    cache_policy=NO_CACHE,
)
def remove_garbage(options: GcOptions, *, delete: bool) -> GcReport:
    """Find what this machine's home needs no longer, and remove it if told so."""
    settings = Settings()
    return collect_garbage(settings, home_store(settings), options, delete=delete)
