"""Promotion of registered versions."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.registry import promotion
from coinml.registry.promotion import GateVerdict
from coinml.runtime.settings import Settings
from coinml.tracking.mlflow_store import home_store
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    # Not cached: an interrupted promotion must run again.
    cache_policy=NO_CACHE,
)
def promote_versions(
    model: str,
    versions: list[int] | None,
    coverage_floor: float,
    replace_lost: bool,
    because: str | None,
) -> list[GateVerdict]:
    """Send versions through the gate, those best on val first, or record a decision for one."""
    settings = Settings()
    store = home_store(settings)
    with store.outages_as_transient():
        return promotion.promote(
            store,
            model,
            versions,
            coverage_floor=coverage_floor,
            replace_lost=replace_lost,
            because=because,
        )
