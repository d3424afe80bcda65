"""Training one head: embeddings and labels in; run, model and registered version out."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coinml.data.records import SPLITS, Split, Target
from coinml.embedding_sets.table import Samples, feature_columns, ids_digest, table_digest
from coinml.encoder.checkpoint import Checkpoint
from coinml.errors import InvalidInputError
from coinml.evaluation.abstention import ValAnswers
from coinml.evaluation.class_counts import classes_without, scarce_classes
from coinml.evaluation.evaluate import Evaluation, evaluate
from coinml.evaluation.leaks import contradiction_texts
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import head_file, head_kind
from coinml.heads.protocol import Head, Numbers, head_input
from coinml.registry.register import register
from coinml.registry.versions import has_version
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore, home_store
from coinml.tracking.run_log import RunLog
from coinml.tracking.run_origin import code_version
from coinml.tracking.test_looks import TEST_IDS_DIGEST
from coinml.training import descriptions
from coinml.training.fingerprint import code_digest, digest_of, training_ingredients
from coinml.training.looks import count_looks, recounted
from coinml.training.run_artifacts import log_evaluation, log_fit
from coinml.training.run_context import RunContext
from coinml.training.train_report import TrainReport
from coinml.training.training_data import SplitData, TrainingData, split_data
from coinml.training.unregistered import FittedHead, find_fit, forget_fit, keep_fit

logger = logging.getLogger(__name__)

_HEADLINE = ("val_accuracy", "test_accuracy", "test_coverage")
"""Metrics that become tags of the version: the registry shows them. The gate adds four tags."""

_TRAIN_METRICS = ("train_loss", "train_accuracy", "train_f1_macro")


def model_name(dataset: str, target: Target = "task") -> str:
    """Name of the registered model, and of the experiment, of a dataset and a target."""
    return f"{dataset}-{target}"


def train_head(
    head: str,
    data: TrainingData,
    *,
    checkpoint: Checkpoint,
    store: MlflowStore | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    drop_leaks: bool = False,
    by_reference: bool = False,
    context: RunContext | None = None,
) -> TrainReport:
    """Train, measure, log and register one head.

    A head that was trained before with the same recipe (head, options, seed, data, the code of
    the heads) is not trained again.

    Args:
        head: One of `heads.kinds.HEADS`.
        data: What it is trained and measured on.
        checkpoint: The encoder's files, which are stored with the registered models.
        store: Where the run goes; by default this home's MLflow store.
        options: Options of the head's trainer; the others have their defaults.
        seed: Seed of all random numbers.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
        drop_leaks: Leave out training videos that are also in val or test, and val videos that are
            also in test.
        by_reference: The model names its encoder on the hub, and no copy of it is stored.
        context: More tags and links for the run, and a callback for its progress.

    Raises:
        InvalidInputError: A split is empty, or training has fewer than two classes.
    """
    ingredients = training_ingredients(
        head,
        data,
        code=code_digest(),
        options=options or {},
        seed=seed,
        drop_leaks=drop_leaks,
        by_reference=by_reference,
    )
    training = _Training(
        head=head,
        data=data,
        checkpoint=checkpoint,
        store=store or home_store(),
        options=options or {},
        seed=seed,
        device=device,
        by_reference=by_reference,
        recipe=digest_of(ingredients),
        context=context or RunContext(),
    )
    earlier = _find_earlier(training)
    if earlier is not None:
        return earlier
    split = split_data(data, drop_leaks=drop_leaks)
    kept = _find_kept(training)
    with _run(training, split, kept) as log:
        # Shows why a head was trained again.
        log.json("recipe", ingredients)
        fit = _fit(training, split, log) if kept is None else _take_up(kept, log)
        log_fit(head, fit, log)
        metrics, predictions = _evaluate(training, split, fit.head, log)
        version = _register(training, split, fit, metrics, ValAnswers.of(predictions), log)
    if training.context.fits_folder:
        forget_fit(training.context.fits_folder, training.recipe)
    return TrainReport(
        head=head,
        run_id=log.run_id,
        model=training.model,
        version=version,
        metrics=metrics,
        reused=False,
        classes_without=classes_without(split.class_counts),
        scarce_classes=scarce_classes(split.class_counts),
        contradictions=contradiction_texts(split.contradictions),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """The arguments of `train_head` that its steps share, and the digest of the recipe."""

    head: str
    data: TrainingData
    checkpoint: Checkpoint
    store: MlflowStore
    options: Mapping[str, Any]
    seed: int
    device: str
    by_reference: bool
    recipe: str
    context: RunContext

    @property
    def model(self) -> str:
        return model_name(self.data.dataset.name, self.data.target)

    def tags(self, split: SplitData) -> dict[str, str]:
        """Tags of the run."""
        spec = self.data.spec
        return {
            "head": self.head,
            "dataset": self.data.dataset.name,
            "target": self.data.target,
            "recipe": self.recipe,
            "encoder": spec.encoder.encoder,
            "encoder_fingerprint": spec.encoder.fingerprint,
            "set_fingerprint": spec.fingerprint,
            "ledger_digest": self.data.ledger_digest,
            "ids_digest": ids_digest(split.table["video_id"]),
            "code_version": code_version(),
        }


def _find_earlier(training: _Training) -> TrainReport | None:
    """The report of an earlier training with the same recipe whose version is registered."""
    # Runs that failed or were killed count too: the tag `version` is written last, so a run that
    # has it is complete.
    store = training.store
    for run_id in store.find_runs(training.model, {"recipe": training.recipe}, finished=False):
        run = store.read_run(run_id)
        version = run.data.tags.get("version")
        if version is not None and has_version(store, training.model, int(version), run_id):
            try:
                counts = store.read_table(run_id, "class_counts")
                contradictions = store.read_table(run_id, "contradictions")
                report = TrainReport(
                    head=training.head,
                    run_id=run_id,
                    model=training.model,
                    version=int(version),
                    metrics=own_metrics(run.data.metrics),
                    reused=True,
                    classes_without=classes_without(counts),
                    scarce_classes=scarce_classes(counts),
                    contradictions=contradiction_texts(contradictions),
                )
                (report,) = recounted(store, [report])
            except InvalidInputError as err:
                # Somebody has deleted its files; the gate could not judge it.
                logger.info("run %s is not used again: %s", run_id, err)
                continue
            store.finish(run_id)
            return report
    return None


def _find_kept(training: _Training) -> FittedHead | None:
    """The fit that a failed call with the same recipe kept."""
    folder = training.context.fits_folder
    return find_fit(folder, training.recipe) if folder else None


@contextmanager
def _run(training: _Training, split: SplitData, kept: FittedHead | None) -> Iterator[RunLog]:
    """The training's run, with its description and parameters; that of a kept fit is continued."""
    data, samples, store = training.data, split.samples, training.store
    with store.run(
        training.model,
        _run_name(training, split),
        tags={**training.context.tags, **training.tags(split), "kind": "head"},
        about=descriptions.experiment_description(data.dataset.name, data.target, training.model),
        run_id=kept.run_id if kept and store.has_run(kept.run_id) else None,
    ) as log:
        log.describe(_described(training, split))
        log.params(_params(training, samples))
        yield log


def _run_name(
    training: _Training, split: SplitData, metrics: Mapping[str, float] | None = None
) -> str:
    return descriptions.run_name(
        training.head,
        training.data.spec,
        train=len(split.samples["train"]),
        val_accuracy=None if metrics is None else metrics["val_accuracy"],
    )


def _take_up(kept: FittedHead, log: RunLog) -> FittedHead:
    """A kept fit, with the rest of its epochs logged."""
    log.complete_history(kept.history)
    return kept


def _fit(training: _Training, split: SplitData, log: RunLog) -> FittedHead:
    """Fit the head and log its epochs."""
    history: list[Numbers] = []
    with log.epochs() as add:

        def on_step(numbers: Numbers) -> None:
            if numbers:
                history.append(numbers)
                add(numbers)
            training.context.on_step()

        head = fit_head(
            training.head,
            split.samples["train"],
            split.samples["val"],
            options=training.options,
            seed=training.seed,
            device=training.device,
            on_step=on_step,
        )
        fit = FittedHead(head=head, history=tuple(history), search=head.search, run_id=log.run_id)
        # Kept before MLflow is called again: it may be away.
        if training.context.fits_folder:
            keep_fit(training.context.fits_folder, training.recipe, training.head, fit)
    return fit


def _evaluate(
    training: _Training, split: SplitData, head: Head, log: RunLog
) -> tuple[dict[str, float], pd.DataFrame]:
    """Measure the head on all splits; log metrics, figures, tables and the dataset.

    Returns:
        The metrics, and the predictions.
    """
    data = training.data
    tested = split.samples["test"].ids
    log.tags({TEST_IDS_DIGEST: ids_digest(tested)})
    evaluations: dict[Split, Evaluation] = {
        name: evaluate(
            samples.y,
            head.predict_proba(head_input(head, samples)),
            head.classes,
            official_size=data.official_sizes[name],
            groups=samples.clusters,
        )
        for name, samples in split.samples.items()
    }
    metrics = {
        key: value
        for name, evaluation in evaluations.items()
        for key, value in evaluation.metrics(name).items()
        # Training intervals are meaningless: the head has seen these videos.
        if name != "train" or key in _TRAIN_METRICS
    }
    # This run is one of them.
    looks = count_looks(training.store, training.model, ids_digest(tested), set(tested))
    metrics["test_looks"] = float(looks)
    metrics["leaks"] = float(len(split.leaks))
    metrics["contradictions"] = float(split.contradictions["sha256"].nunique())
    metrics["leaks_dropped"] = float(split.leaks_dropped)
    log.metrics(metrics)
    log.tags({"coverage": f"{evaluations['test'].coverage.value:.3f}"})
    predictions = log_evaluation(log, head, data, split, evaluations)
    features = feature_columns(split.table)
    log.dataset(
        # Embedding columns would only clutter MLflow's schema view.
        split.table.drop(columns=features),
        name=data.dataset.name,
        digest=table_digest(split.table),
        context="training",
        source={
            "set_fingerprint": data.spec.fingerprint,
            "ledger_digest": data.ledger_digest,
            "embedding_columns": str(len(features)),
        },
    )
    log.describe(_described(training, split, metrics))
    log.rename(_run_name(training, split, metrics))
    return metrics, predictions


def _register(
    training: _Training,
    split: SplitData,
    fit: FittedHead,
    metrics: Mapping[str, float],
    val_answers: ValAnswers,
    log: RunLog,
) -> int:
    """Register the head with its encoder; the version's number."""
    data, page = training.data, training.store.page_of(log.run_id)
    # How many settings val chose from, by which the gate is stricter.
    tried = max(1, len(fit.search)) + training.context.sweep_trials
    log.tags({"settings_tried": tried})
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / head_file(training.head)
        fit.head.save(file)
        return register(
            training.store,
            training.model,
            log.run_id,
            head_file=file,
            checkpoint=training.checkpoint,
            spec=data.spec,
            val_answers=val_answers,
            by_reference=training.by_reference,
            about=descriptions.model_description(data.dataset.name, data.target, training.model),
            description=_described(training, split, metrics, {"its run": page} if page else {}),
            tags={
                "head": training.head,
                **{name: f"{metrics[name]:.4f}" for name in _HEADLINE},
            },
            before_version=training.context.before_version,
        )


def _params(training: _Training, samples: Mapping[Split, Samples]) -> dict[str, object]:
    """The run's parameters: what a comparison of two runs shows."""
    spec = training.data.spec
    return {
        "head": training.head,
        "seed": training.seed,
        "encoder": spec.encoder.encoder,
        "clips": spec.encoder.clips,
        "extent": spec.extent,
        "classes": len(samples["train"].classes),
        **head_kind(training.head).logged_options(training.options),
        **{f"{split}_videos": part.videos for split, part in samples.items()},
        **{f"{split}_segments": len(part) for split, part in samples.items() if part.groups},
    }


def _described(
    training: _Training,
    split: SplitData,
    metrics: Mapping[str, float] | None = None,
    links: Mapping[str, str] | None = None,
) -> str:
    return descriptions.run_description(
        training.head,
        training.data,
        sizes={name: len(split.samples[name]) for name in SPLITS},
        metrics=metrics,
        links={**training.context.links, **(links or {})},
    )
