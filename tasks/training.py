"""Training one head on what is in an embedding set."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from coinml import growth, progress, training
from coinml.dataset import build_table, clips_by_video
from coinml.heads import LOOK_AT_CLIPS
from coinml.ledger import DOWNLOADED, Ledger
from coinml.records import Target
from coinml.selection import Selection
from coinml.set_options import SetOptions
from coinml.settings import Settings
from coinml.store import EmbeddingSet
from coinml.targets import examples
from coinml.tracking import Store
from coinml.training import TrainReport, model_name
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient


@task(
    task_run_name="train_head {head}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    # A run with the same recipe is found in MLflow, which holds its model as well.
    cache_policy=NO_CACHE,
)
def train_head(
    head: str,
    selection: Selection,
    fingerprint: str,
    options: SetOptions,
    *,
    target: Target = "task",
    seed: int,
    by_reference: bool,
    drop_leaks: bool,
) -> TrainReport:
    """Train, log and register a head on the selection's videos that are in the set."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    with Ledger(settings.ledger_url) as ledger:
        rows = ledger.rows(dataset.name, state=DOWNLOADED)
        digest = ledger.digest(dataset.name)
    embedding_set = EmbeddingSet.open(
        settings.embeddings_root, dataset.name, fingerprint=fingerprint
    )
    sha256s = {row.video_id: row.sha256 for row in rows if row.sha256}
    embedded = embedding_set.videos(sha256s)
    extent: Any = embedding_set.spec.extent
    clips = None
    if head in LOOK_AT_CLIPS:
        wanted = examples(dataset.videos, target=target, extent=extent)
        clips = clips_by_video(embedding_set.clips(), sha256s, wanted=wanted)
    return training.train_head(
        head,
        dataset,
        build_table(dataset.videos, embedded, target=target, extent=extent),
        store=Store(uri=settings.tracking_uri, artifact_root=settings.artifact_root),
        checkpoint=options.checkpoint(),
        spec=embedding_set.spec,
        ledger_digest=digest,
        target=target,
        seed=seed,
        device=settings.device,
        clips=clips,
        sha256s=sha256s,
        drop_leaks=drop_leaks,
        by_reference=by_reference,
        tags={"prefect_flow_run_id": str(flow_run.id or "")},
        on_epoch=lambda: progress.advance(f"train {head}"),
    )


@task(cache_policy=NO_CACHE)
def count_trained(dataset: str, fingerprint: str, target: Target = "task") -> int:
    """Number of videos that heads were last trained on with this set."""
    settings = Settings()
    store = Store(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
    return growth.trained_videos(store, model_name(dataset, target), fingerprint)
