"""Training one head: table in; run, model and registered version out."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.records import SPLITS, Dataset, Split, Target
from coinml.data.targets import FEW_VIDEOS, domains_of_classes, examples, official_sizes
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets.table import (
    Samples,
    feature_columns,
    ids_digest,
    split_samples,
    table_digest,
)
from coinml.encoder.checkpoint import Checkpoint
from coinml.evaluation.class_counts import class_counts, classes_without, scarce_classes
from coinml.evaluation.evaluate import evaluate
from coinml.evaluation.leaks import drop_leaks as without_leaks
from coinml.evaluation.leaks import find_leaks
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import head_file, head_kind
from coinml.heads.protocol import head_input
from coinml.registry.register import register
from coinml.registry.versions import has_version
from coinml.tracking.mlflow_store import MlflowStore, code_version
from coinml.tracking.run_log import RunLog
from coinml.training import descriptions
from coinml.training.fingerprint import clips_digest, code_digest, digest_of
from coinml.training.run_artifacts import log_evaluation, log_fit
from coinml.training.unregistered import Fit, find_fit, forget_fit, keep_fit

logger = logging.getLogger(__name__)

_HEADLINE = (
    "val_accuracy",
    "val_accuracy_low",
    "val_majority_rate",
    "test_accuracy",
    "test_accuracy_low",
    "test_accuracy_high",
    "test_accuracy_missing_wrong",
    "test_f1_macro",
    "test_top5_accuracy",
    "test_coverage",
)
"""What the gate reads off a version, and what a person wants to see there."""

_TRAIN_METRICS = ("train_loss", "train_accuracy", "train_f1_macro")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainReport:
    """A trained head, or one found that was trained on the same before.

    Attributes:
        head: One of `heads.kinds.HEADS`.
        run_id: Its MLflow run.
        model: Name of the registered model.
        version: Of the registered model.
        metrics: Final numbers of val and test, by MLflow's names.
        reused: Whether an earlier run with the same recipe was taken.
        classes_without: The classes that have no video here, by split.
        scarce_classes: Classes with too few training videos to learn much of them.
    """

    head: str
    run_id: str
    model: str
    version: int
    metrics: Mapping[str, float]
    reused: bool
    classes_without: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scarce_classes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def model_name(dataset: str, target: Target = "task") -> str:
    """Name of the registered model, and of the experiment, of a dataset and a target."""
    return f"{dataset}-{target}"


def train_head(
    head: str,
    dataset: Dataset,
    table: pd.DataFrame,
    *,
    store: MlflowStore,
    checkpoint: Checkpoint,
    spec: SetSpec,
    ledger_digest: str,
    target: Target = "task",
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    clips: Mapping[str, npt.NDArray[np.float16]] | None = None,
    sha256s: Mapping[str, str] | None = None,
    drop_leaks: bool = False,
    by_reference: bool = False,
    keep_in: Path | None = None,
    tags: Mapping[str, str] | None = None,
    links: Mapping[str, str] | None = None,
    on_epoch: Callable[[], None] | None = None,
) -> TrainReport:
    """Train, measure, log and register one head.

    What was trained before with the same recipe (head, seed, table, the code of the heads) is not
    trained again.

    Args:
        head: One of `heads.kinds.HEADS`.
        dataset: Says how many videos each split has officially.
        table: As `dataset.build_table` makes it for the target.
        store: Where the run goes.
        checkpoint: The encoder's files, for the registered model to carry.
        spec: The embedding set that the table came from.
        ledger_digest: What was collected when the table was made.
        target: Whose classes.
        seed: Of everything random.
        device: For the heads that are networks.
        options: Of the head's trainer, in place of its defaults, such as a sweep found.
        clips: The clips of each row of the table by its id, for the head that looks at them.
        sha256s: Hash of each video's file, by which a video under two ids is found.
        drop_leaks: Train without the videos that are on a later side of the split as well.
        by_reference: Let the model name its encoder on the hub instead of carrying it.
        keep_in: Folder for the fitted head until it is registered, so that a call that follows a
            failure goes on from there.
        tags: More tags for the run.
        links: For the run's description: addresses by what they lead to.
        on_epoch: Called after each epoch or fit.

    Raises:
        InvalidInputError: A split is empty, or training has fewer than two classes.
    """
    name = model_name(dataset.name, target)
    # The selection counts as well as what of it is embedded: coverage is measured on it, and a
    # class whose videos are all lost stays among the classes.
    extent: Any = spec.extent
    wanted = examples(dataset.videos, target=target, extent=extent)
    official = official_sizes(wanted)
    classes = sorted({one.label for one in wanted})
    ingredients = {
        "head": head,
        "target": target,
        "seed": seed,
        "options": dict(options or {}),
        "clips": None if clips is None else clips_digest(clips, table),
        "version": code_version(),
        "code": code_digest(),
        "videos": len(table),
        "table": table_digest(table),
        "set": spec.fingerprint,
        "official": official,
        "classes": len(classes),
        "by_reference": by_reference,
        "drop_leaks": drop_leaks,
        "files": digest_of({i: sha256s[i] for i in table["video_id"] if i in sha256s})
        if sha256s
        else None,
    }
    recipe = digest_of(ingredients)
    known = _known(store, name, head, recipe)
    if known is not None:
        return known
    leaks = find_leaks(table, sha256s)
    if drop_leaks:
        table = without_leaks(table, leaks)
    parts = split_samples(table, classes, clips=clips)
    counts = class_counts(table, [(one.label, one.split) for one in wanted])
    scarce = scarce_classes(counts)
    _warn_of(scarce, len(classes))
    identity = {
        "head": head,
        "dataset": dataset.name,
        "target": target,
        "recipe": recipe,
        "encoder": spec.encoder.encoder,
        "encoder_fingerprint": spec.encoder.fingerprint,
        "set_fingerprint": spec.fingerprint,
        "ledger_digest": ledger_digest,
        "ids_digest": ids_digest(table["video_id"]),
        "code_version": code_version(),
    }

    def described(metrics: Mapping[str, float] | None = None, **more: str) -> str:
        return descriptions.run_description(
            head,
            dataset,
            target,
            spec,
            sizes={split: len(parts[split]) for split in SPLITS},
            classes=len(classes),
            looks_at_clips=parts["train"].clips is not None,
            metrics=metrics,
            links={**(links or {}), **more},
        )

    run_name = descriptions.run_name(
        head,
        spec,
        train=len(parts["train"]),
        measured=len(parts["test"]),
        official=official["test"],
        tuned=bool(options),
    )
    kept = find_fit(keep_in, recipe) if keep_in else None
    with store.run(
        name,
        run_name,
        tags={**(tags or {}), **identity, "kind": "head"},
        about=descriptions.experiment_description(dataset.name, target, name),
        run_id=kept.run_id if kept and store.has_run(kept.run_id) else None,
    ) as log:
        log.describe(described())
        # For whoever wonders why a head was trained anew.
        log.json("recipe", ingredients)
        log.params(_params(head, seed, options or {}, parts, spec))
        if kept is None:
            fit = _fit(
                head,
                parts,
                log,
                options=options or {},
                seed=seed,
                device=device,
                on_epoch=on_epoch,
                keep=lambda fit: keep_fit(keep_in, recipe, head, fit) if keep_in else None,
            )
        else:
            fit = kept
            log.complete_history(fit.history)
        fitted = fit.head
        log_fit(head, fit, log)
        looked_at = {"test_ids_digest": ids_digest(parts["test"].ids)}
        log.tags(looked_at)
        evaluations = {
            split: evaluate(
                parts[split].y,
                fitted.predict_proba(head_input(fitted, parts[split])),
                fitted.classes,
                official_size=official[split],
                groups=parts[split].groups or None,
            )
            for split in SPLITS
        }
        metrics = {
            key: value
            for split, e in evaluations.items()
            for key, value in e.metrics(split).items()
            # An interval around what was learnt by heart would say nothing.
            if split != "train" or key in _TRAIN_METRICS
        }
        # This one included, and those that failed after they had looked.
        metrics["test_looks"] = float(len(store.find_runs(name, looked_at, finished=False)))
        metrics["leaks"] = float(len(leaks))
        metrics["leaks_dropped"] = float(leaks["video_id"].nunique() if drop_leaks else 0)
        log.table("leaks", leaks)
        log.table("class_counts", counts)
        log.metrics(metrics)
        log.tags({"coverage": f"{evaluations['test'].coverage.value:.3f}"})
        domains = domains_of_classes(dataset.videos, target=target)
        log_evaluation(log, fitted, parts, evaluations, official, domains)
        digest = table_digest(table)
        features = feature_columns(table)
        log.dataset(
            # Of a thousand equal columns nobody learns anything.
            table.drop(columns=features),
            name=dataset.name,
            digest=digest,
            context="training",
            source={
                "set_fingerprint": spec.fingerprint,
                "ledger_digest": ledger_digest,
                "embedding_columns": str(len(features)),
            },
        )
        log.describe(described(metrics))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / head_file(head)
            fitted.save(file)
            version = register(
                store,
                name,
                log.run_id,
                head_file=file,
                checkpoint=checkpoint,
                spec=spec,
                by_reference=by_reference,
                about=descriptions.model_description(dataset.name, target, name),
                description=described(metrics, **_page("its run", store.page_of(log.run_id))),
                tags=identity | looked_at | {"run_id": log.run_id} | _headline(metrics),
            )
    if keep_in:
        forget_fit(keep_in, recipe)
    return TrainReport(
        head=head,
        run_id=log.run_id,
        model=name,
        version=version,
        metrics=metrics,
        reused=False,
        classes_without=classes_without(counts),
        scarce_classes=scarce,
    )


def _known(store: MlflowStore, name: str, head: str, recipe: str) -> TrainReport | None:
    # Also one that failed or was killed: the version is written last, and who has it is whole.
    for run_id in store.find_runs(name, {"recipe": recipe}, finished=False):
        run = store.read_run(run_id)
        version = run.data.tags.get("version")
        if version is not None and has_version(store, name, int(version)):
            store.finish(run_id)
            counts = store.read_table(run_id, "class_counts")
            return TrainReport(
                head=head,
                run_id=run_id,
                model=name,
                version=int(version),
                metrics=dict(run.data.metrics),
                reused=True,
                classes_without=classes_without(counts),
                scarce_classes=scarce_classes(counts),
            )
    return None


def _params(
    head: str,
    seed: int,
    options: Mapping[str, Any],
    parts: Mapping[Split, Samples],
    spec: SetSpec,
) -> dict[str, object]:
    """What a comparison of two runs is to show."""
    return {
        "head": head,
        "seed": seed,
        "encoder": spec.encoder.encoder,
        "clips": spec.encoder.clips,
        "extent": spec.extent,
        "classes": len(parts["train"].classes),
        **head_kind(head).logged_options(options),
        **{f"{split}_videos": samples.videos for split, samples in parts.items()},
        **{f"{split}_segments": len(samples) for split, samples in parts.items() if samples.groups},
    }


def _fit(
    head: str,
    parts: Mapping[Split, Samples],
    log: RunLog,
    *,
    options: Mapping[str, Any],
    seed: int,
    device: str,
    on_epoch: Callable[[], None] | None,
    keep: Callable[[Fit], None],
) -> Fit:
    history: list[Mapping[str, float]] = []
    with log.epochs() as add:

        def on_step(numbers: Mapping[str, float]) -> None:
            if numbers:
                history.append(numbers)
                add(numbers)
            if on_epoch is not None:
                on_epoch()

        fitted = fit_head(
            head,
            parts["train"],
            parts["val"],
            options=options,
            seed=seed,
            device=device,
            on_step=on_step,
        )
        fit = Fit(head=fitted, history=tuple(history), search=fitted.search, run_id=log.run_id)
        # Before anything of it is told to MLflow.
        keep(fit)
    return fit


def _page(name: str, address: str | None) -> dict[str, str]:
    return {name: address} if address else {}


def _warn_of(scarce: Sequence[str], total: int) -> None:
    if scarce:
        logger.warning(
            "fewer than %d training videos of %d of %d classes: %s%s",
            FEW_VIDEOS,
            len(scarce),
            total,
            ", ".join(scarce[:10]),
            " … (tables/class_counts.csv of the run)" if len(scarce) > 10 else "",
        )


def _headline(metrics: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{metrics[name]:.4f}" for name in _HEADLINE}
