"""Training one head on what is in an embedding set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.data.records import Dataset, Target
from coinml.data.targets import examples, extent_of
from coinml.embedding.jobs import count_done, plan_jobs
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.table import build_table, clips_by_video
from coinml.heads.kinds import head_kind
from coinml.ledger import DOWNLOADED, Ledger
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_errors import answering
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training import growth, sweep_runs
from coinml.training import train_head as training
from coinml.training.sweep_runs import TuneReport
from coinml.training.train_head import TrainReport, model_name
from tasks.links import flow_run_links, flow_run_tags
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
    tuned: TuneReport | None = None,
) -> TrainReport:
    """Train, log and register a head on the selection's videos that are in the set."""
    settings = Settings()
    found = _material(
        settings, selection, fingerprint, target=target, with_clips=head_kind(head).takes_clips
    )
    store, chosen = _store(settings), tuned.result.options if tuned else {}
    stage, most, done = f"train {head}", head_kind(head).max_steps(chosen), 0

    def on_epoch() -> None:
        nonlocal done
        done += 1
        progress.advance(stage, total=most)

    with answering(store):
        report = training.train_head(
            head,
            found.dataset,
            found.table,
            store=store,
            checkpoint=options.checkpoint(),
            spec=found.embedding_set.spec,
            ledger_digest=found.ledger_digest,
            target=target,
            seed=seed,
            device=settings.device,
            options=chosen,
            clips=found.clips,
            sha256s=found.sha256s,
            drop_leaks=drop_leaks,
            by_reference=by_reference,
            keep_in=settings.data_dir / "fitted",
            tags=flow_run_tags() | ({"tuned_by": tuned.run_id} if tuned else {}),
            links=flow_run_links(),
            on_epoch=on_epoch,
        )
    # A network that stopped early is done all the same.
    progress.advance(stage, 0, total=done or None)
    return report


@task(
    task_run_name="tune_head {head}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    # Trials that are done are on record, and are not done again.
    cache_policy=NO_CACHE,
)
def tune_head(
    head: str,
    selection: Selection,
    fingerprint: str,
    *,
    target: Target = "task",
    trials: int,
    seed: int,
    drop_leaks: bool,
) -> TuneReport:
    """Sweep over a head's options on the training and validation videos alone."""
    settings = Settings()
    found = _material(
        settings, selection, fingerprint, target=target, with_clips=head_kind(head).takes_clips
    )
    store = _store(settings)
    with answering(store):
        return sweep_runs.tune_head(
            head,
            found.dataset.name,
            found.table,
            target=target,
            trials=trials,
            store=store,
            storage=settings.data_dir / "sweeps.db",
            classes=found.classes,
            seed=seed,
            device=settings.device,
            clips=found.clips,
            sha256s=found.sha256s,
            drop_leaks=drop_leaks,
            tags=flow_run_tags() | {"encoder": found.embedding_set.spec.encoder.encoder},
            on_trial=lambda done: progress.advance(f"sweep {head}", done),
            on_step=lambda: progress.advance(f"sweep {head}", 0),
        )


@task(cache_policy=NO_CACHE)
def count_trained(
    dataset: str, fingerprint: str, heads: tuple[str, ...], target: Target = "task"
) -> int:
    """Number of videos that heads were last trained on with this set."""
    settings = Settings()
    model = model_name(dataset, target)
    return growth.trained_videos(_store(settings), model, fingerprint, heads)


@task(cache_policy=NO_CACHE)
def count_embedded(selection: Selection, fingerprint: str) -> int:
    """Number of videos of a selection that are in a set."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    with Ledger(settings.ledger_url) as ledger:
        rows = ledger.rows(dataset.name, state=DOWNLOADED)
    embedding_set = EmbeddingSet.open(
        settings.embeddings_root, dataset.name, fingerprint=fingerprint
    )
    jobs = plan_jobs(dataset.videos, rows, extent_of(None, embedding_set.spec.extent))
    return len(count_done(jobs, embedding_set.done()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Material:
    """What heads are trained on, and where it is from."""

    dataset: Dataset
    table: pd.DataFrame
    classes: list[str]
    embedding_set: EmbeddingSet
    ledger_digest: str
    sha256s: dict[str, str]
    clips: dict[str, npt.NDArray[np.float16]] | None


def _material(
    settings: Settings,
    selection: Selection,
    fingerprint: str,
    *,
    target: Target,
    with_clips: bool,
) -> _Material:
    dataset = selection.load(settings.data_dir)
    with Ledger(settings.ledger_url) as ledger:
        rows = ledger.rows(dataset.name, state=DOWNLOADED)
        digest = ledger.digest(dataset.name)
    embedding_set = EmbeddingSet.open(
        settings.embeddings_root, dataset.name, fingerprint=fingerprint
    )
    sha256s = {row.video_id: row.sha256 for row in rows if row.sha256}
    extent: Any = embedding_set.spec.extent
    wanted = examples(dataset.videos, target=target, extent=extent)
    clips = None
    if with_clips:
        clips = clips_by_video(embedding_set.clips(), sha256s, wanted=wanted)
    return _Material(
        dataset=dataset,
        table=build_table(
            dataset.videos, embedding_set.videos(sha256s), target=target, extent=extent
        ),
        classes=sorted({one.label for one in wanted}),
        embedding_set=embedding_set,
        ledger_digest=digest,
        sha256s=sha256s,
        clips=clips,
    )


def _store(settings: Settings) -> MlflowStore:
    return MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
