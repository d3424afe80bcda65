"""Auditing an embedding set."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.audit import audit_set
from coinml.data.records import Target
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import find_spec
from coinml.ledger import Ledger
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import home_store
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient
from tasks.summaries import AuditSummary


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    cache_policy=NO_CACHE,
)
def audit_embedded(
    selection: Selection, set_options: SetOptions, target: Target, seed: int
) -> AuditSummary:
    """Audit the selection's videos that are in the set, and log what is found to MLflow."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    store = home_store(settings)
    root = settings.embeddings_root
    made = EmbeddingSet.open(root, dataset.name, find_spec(root, dataset.name, set_options))
    with store.outages_as_transient(), Ledger.of(settings) as ledger:
        found, run_id = audit_set(
            dataset,
            made,
            ledger,
            store,
            target=target,
            seed=seed,
            tick=lambda: progress.advance("look"),
        )
    return AuditSummary(
        dataset=dataset.name,
        target=target,
        videos=found.videos,
        found={name: len(rows) for name, rows in found.tables.items()},
        notes=found.notes,
        run_id=run_id,
    )
