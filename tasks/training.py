"""Training and tuning one head on an embedding set, and counting its videos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from prefect import task
from prefect.cache_policies import NO_CACHE

from coinml.data.records import Target
from coinml.data.targets import extent_of
from coinml.embedding.jobs import count_done
from coinml.embedding_sets import BrokenPartError, EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import quantized_file
from coinml.encoder.checkpoint import Checkpoint
from coinml.errors import InvalidInputError
from coinml.heads.kinds import head_kind
from coinml.ledger import Ledger
from coinml.runtime import progress
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import home_store
from coinml.tracking.store_check import check_store
from coinml.training import cv_runs, growth, looks, sweep_runs
from coinml.training import train_head as training
from coinml.training.cross_validation import folds_wanted, most_folds
from coinml.training.cv_runs import CvReport
from coinml.training.options import TrainOptions
from coinml.training.run_context import RunContext
from coinml.training.sweep_runs import TuneReport
from coinml.training.train_head import model_name
from coinml.training.train_report import TrainReport
from coinml.training.training_data import TrainingData, load_training_data
from tasks.embedding import find_jobs
from tasks.links import flow_run_links, flow_run_tags
from tasks.policies import RETRIES, RETRY_DELAYS_S, only_transient


@task(
    task_run_name="check_tracking {experiment}",
    # A few seconds in all: a wrong address should be told at once, and no work is lost yet.
    retries=2,
    retry_delay_seconds=RETRY_DELAYS_S[:2],
    retry_condition_fn=only_transient,
    cache_policy=NO_CACHE,
)
def check_tracking(experiment: str) -> None:
    """Check that runs can be recorded in an experiment, before hours of work."""
    check_store(home_store(Settings()), experiment)


@task(
    task_run_name="train_head {head}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    # A run with the same options and data is found in MLflow, with its model.
    cache_policy=NO_CACHE,
)
def train_head(
    head: str,
    selection: Selection,
    fingerprint: str,
    set_options: SetOptions,
    options: TrainOptions,
    tuned: TuneReport | None = None,
    *,
    turn: Callable[[], None] = lambda: None,
) -> TrainReport:
    """Train, log and register a head on the selection's videos that are in the set.

    Its version is created after `turn` has returned.
    """
    settings = Settings()
    target = options.target_for(set_options)
    data = _load_data(settings, selection, fingerprint, target=target, head=head)
    store = home_store(settings)
    chosen = tuned.result.options if tuned else options.options_of(head)
    stage, most, done = f"train {head}", head_kind(head).max_steps(chosen), 0

    def on_step() -> None:
        nonlocal done
        done += 1
        progress.advance(stage, total=most)

    with store.outages_as_transient():
        report = training.train_head(
            head,
            data,
            store=store,
            checkpoint=_checkpoint(settings, set_options, data),
            options=chosen,
            seed=options.seed,
            device=settings.device,
            drop_leaks=options.drop_leaks,
            by_reference=options.by_reference,
            context=RunContext(
                tags=flow_run_tags() | ({"tuned_by": tuned.run_id} if tuned else {}),
                links=flow_run_links(),
                fits_folder=settings.data_dir / "fitted",
                sweep_trials=tuned.result.completed + tuned.result.pruned if tuned else 0,
                on_step=on_step,
                before_version=turn,
            ),
        )
    # A network may stop before its last epoch.
    progress.advance(stage, 0, total=done or None)
    return report


@task(
    task_run_name="cross_validate {head}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    # A run with the same options and data is found in MLflow.
    cache_policy=NO_CACHE,
)
def cross_validate(
    head: str,
    selection: Selection,
    fingerprint: str,
    set_options: SetOptions,
    options: TrainOptions,
) -> CvReport | None:
    """Cross-validate a head, if that is asked for or the dataset is small; else None."""
    settings = Settings()
    target = options.target_for(set_options)
    data = _load_data(settings, selection, fingerprint, target=target, head=head)
    folds = folds_wanted(data, options.cv)
    if options.cv is None and folds:
        folds = most_folds(data, folds)
    if not folds:
        return None
    store = home_store(settings)
    with store.outages_as_transient():
        return cv_runs.cross_validate_head(
            head,
            data,
            folds=folds,
            repeats=options.cv_repeats,
            # The default report is to cost seconds.
            trials=options.sweep if options.cv else 0,
            options=options.options_of(head),
            store=store,
            seed=options.seed,
            device=settings.device,
            context=RunContext(
                tags=flow_run_tags(),
                on_step=lambda: progress.advance(f"cross-validate {head}", 0),
            ),
        )


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    cache_policy=NO_CACHE,
)
def recount_looks(reports: tuple[TrainReport, ...]) -> tuple[TrainReport, ...]:
    """The reports with the number of evaluations on their test videos by now."""
    store = home_store(Settings())
    with store.outages_as_transient():
        return looks.recounted(store, reports)


@task(
    task_run_name="tune_head {head}",
    retries=RETRIES,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=only_transient,
    # Finished trials are recorded and not repeated.
    cache_policy=NO_CACHE,
)
def tune_head(
    head: str,
    selection: Selection,
    fingerprint: str,
    set_options: SetOptions,
    options: TrainOptions,
) -> TuneReport:
    """Sweep over a head's hyperparameters on the training and validation videos alone."""
    settings = Settings()
    target = options.target_for(set_options)
    data = _load_data(settings, selection, fingerprint, target=target, head=head)
    store = home_store(settings)
    with store.outages_as_transient():
        return sweep_runs.tune_head(
            head,
            data,
            trials=options.sweep,
            storage=settings.data_dir / "sweeps.db",
            fixed=options.options_of(head),
            store=store,
            seed=options.seed,
            device=settings.device,
            drop_leaks=options.drop_leaks,
            context=RunContext(
                tags=flow_run_tags() | {"encoder": data.spec.encoder.encoder},
                on_step=lambda: progress.advance(f"sweep {head}", 0),
            ),
            on_trial=lambda done: progress.advance(f"sweep {head}", done),
        )


@task(cache_policy=NO_CACHE)
def count_trained(
    dataset: str, fingerprint: str, heads: tuple[str, ...], target: Target = "task"
) -> int:
    """Number of videos that heads were last trained on with this set."""
    settings = Settings()
    model = model_name(dataset, target)
    return growth.trained_videos(home_store(settings), model, fingerprint, heads)


@task(cache_policy=NO_CACHE)
def count_embedded(selection: Selection, fingerprint: str) -> int:
    """Number of videos of a selection that are in a set; 0 if there is no such set."""
    settings = Settings()
    dataset = selection.load(settings.data_dir)
    try:
        embedding_set = EmbeddingSet.open(
            settings.embeddings_root, dataset.name, fingerprint=fingerprint
        )
    except InvalidInputError:
        return 0
    jobs = find_jobs(dataset, extent_of(None, embedding_set.spec.extent))
    return len(count_done(jobs, embedding_set.done()))


def _checkpoint(settings: Settings, options: SetOptions, data: TrainingData) -> Checkpoint:
    """The files of the set's encoder, with its quantized model if it has one."""
    spec = data.spec
    embedding_set = EmbeddingSet.open(settings.embeddings_root, spec.dataset, spec)
    return replace(options.checkpoint(), quantized=quantized_file(embedding_set))


def _load_data(
    settings: Settings, selection: Selection, fingerprint: str, *, target: Target, head: str
) -> TrainingData:
    dataset = selection.load(settings.data_dir)
    embedding_set = EmbeddingSet.open(
        settings.embeddings_root, dataset.name, fingerprint=fingerprint
    )
    try:
        with Ledger.of(settings) as ledger:
            return load_training_data(
                dataset,
                embedding_set,
                ledger,
                target=target,
                with_clips=head_kind(head).takes_clips,
            )
    except BrokenPartError:
        # Embedding does not read the vectors of a set in a bucket: it would not find the part.
        embedding_set.set_aside_broken(in_bucket=True)
        raise
