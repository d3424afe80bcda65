"""What a run leaves to be looked at in Prefect."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from coinml.collection.attrition import attrition_key, attrition_markdown
from coinml.ledger import Ledger
from coinml.settings import Settings


@task(cache_policy=NO_CACHE)
def report_attrition(dataset: str) -> None:
    """Publish what became of a dataset's videos under a key that stays the same."""
    settings = Settings()
    with Ledger(settings.ledger_url) as ledger:
        status = ledger.status(dataset, rate_per_hour=settings.rate_per_hour)
        duplicates = sum(len(ids) - 1 for ids in ledger.duplicates(dataset))
    create_markdown_artifact(
        key=attrition_key(dataset),
        markdown=attrition_markdown(status, duplicates=duplicates),
        description=f"What became of the videos of {dataset}",
    )
