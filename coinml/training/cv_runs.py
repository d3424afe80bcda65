"""Cross-validating a head as an MLflow run; one with the same recipe is found again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coinml.embedding_sets.table import ids_digest, sample_ids
from coinml.evaluation.intervals import Estimate, caveat
from coinml.figures.folds import folds_figure
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore, home_store
from coinml.tracking.test_looks import TEST_IDS_DIGEST
from coinml.training import descriptions
from coinml.training.cross_validation import (
    DEFAULT_FOLDS,
    DEFAULT_REPEATS,
    CrossValidation,
    cross_validate,
)
from coinml.training.fingerprint import code_digest, digest_of, training_ingredients
from coinml.training.looks import CROSS_VALIDATION
from coinml.training.run_context import RunContext
from coinml.training.train_head import model_name
from coinml.training.training_data import TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class CvReport:
    """A cross-validated head.

    Attributes:
        head: One of `heads.kinds.HEADS`.
        run_id: Its MLflow run.
        folds: Folds of a repeat.
        repeats: Number of cuts into folds.
        videos: Number of videos (or segments).
        groups: Number of independent groups of them.
        accuracy: Mean over the folds.
        metrics: By MLflow's names: `cv_f1_macro` and so on.
        reused: Whether an earlier run with the same recipe was taken.
    """

    head: str
    run_id: str
    folds: int
    repeats: int
    videos: int
    groups: int
    accuracy: Estimate
    metrics: Mapping[str, float]
    reused: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def cross_validate_head(
    head: str,
    data: TrainingData,
    *,
    folds: int = DEFAULT_FOLDS,
    repeats: int = DEFAULT_REPEATS,
    trials: int = 0,
    options: Mapping[str, Any] | None = None,
    store: MlflowStore | None = None,
    seed: int = 0,
    device: str = "cpu",
    context: RunContext | None = None,
) -> CvReport:
    """Cross-validate a head and log folds, predictions and figure; registers no model.

    Args:
        head: One of `heads.kinds.HEADS`.
        data: What it is trained and measured on.
        folds: Folds of a repeat.
        repeats: Number of cuts into folds.
        trials: Settings that a sweep tries in each fold; 0 for the head's own search.
        options: Options of the head's trainer that every fold has; a sweep tries the others.
        store: Where the run goes; by default this home's MLflow store.
        seed: Seed of the cuts and of the heads.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
        context: More tags for the run, and a callback after each epoch or setting.

    Raises:
        InvalidInputError: As `cross_validate`.
    """
    store, context = store or home_store(), context or RunContext()
    model = model_name(data.dataset.name, data.target)
    cut = {"folds": folds, "repeats": repeats, "trials": trials}
    ingredients = training_ingredients(
        head,
        data,
        code=code_digest(),
        options=options or {},
        seed=seed,
        drop_leaks=False,
        by_reference=False,
    )
    recipe = digest_of({**ingredients, **cut})
    for run_id in store.find_runs(model, {"cv_recipe": recipe}):
        metrics = own_metrics(store.read_run(run_id).data.metrics)
        return _report(head, run_id, metrics, cut, reused=True)
    tags = {
        "kind": CROSS_VALIDATION,
        "head": head,
        "target": data.target,
        "dataset": data.dataset.name,
    }
    with store.run(
        model,
        f"cv {head} {folds}x{repeats} {len(data.table)}v",
        tags={**context.tags, **tags, "set_fingerprint": data.spec.fingerprint},
        about=descriptions.experiment_description(data.dataset.name, data.target, model),
    ) as log:
        log.params({"head": head, "seed": seed, **cut, **(options or {})})
        if not data.dataset.official_split:
            log.tags({TEST_IDS_DIGEST: ids_digest(sample_ids(data.table))})
        found = cross_validate(
            head,
            data,
            folds=folds,
            repeats=repeats,
            trials=trials,
            options=options,
            seed=seed,
            device=device,
            on_step=context.on_step,
        )
        metrics = _metrics(found)
        log.metrics(metrics)
        log.table("folds", found.by_fold)
        log.table("predictions", found.predictions)
        log.figure("folds", folds_figure(found.by_fold, found.accuracy, title=f"{head}, {model}"))
        log.describe(descriptions.cv_description(head, data, metrics))
        # Last, so that a run with it is complete.
        log.tags({"cv_recipe": recipe})
    return _report(head, log.run_id, metrics, cut, reused=False)


def _metrics(found: CrossValidation) -> dict[str, float]:
    return {
        "cv_accuracy": found.accuracy.value,
        "cv_accuracy_low": found.accuracy.low,
        "cv_accuracy_high": found.accuracy.high,
        "cv_videos": float(found.videos),
        "cv_groups": float(found.groups),
        "cv_folds": float(found.folds),
        "cv_repeats": float(found.repeats),
        **{f"cv_{name}": value for name, value in found.metrics.items()},
    }


def _report(
    head: str, run_id: str, metrics: Mapping[str, float], cut: Mapping[str, int], *, reused: bool
) -> CvReport:
    return CvReport(
        head=head,
        run_id=run_id,
        folds=cut["folds"],
        repeats=cut["repeats"],
        videos=round(metrics["cv_videos"]),
        groups=round(metrics["cv_groups"]),
        accuracy=Estimate(
            value=metrics["cv_accuracy"],
            low=metrics["cv_accuracy_low"],
            high=metrics["cv_accuracy_high"],
            caveat=caveat(round(metrics["cv_groups"])),
        ),
        metrics=metrics,
        reused=reused,
    )
