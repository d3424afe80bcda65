"""Tuning one head: a sweep whose trials are MLflow runs nested in one run.

The test videos are removed from the table before anything else is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from coinml.data.records import Split
from coinml.embedding_sets.table import Samples, split_samples, table_digest
from coinml.evaluation.leaks import drop_leaks as without_leaks
from coinml.evaluation.leaks import find_leaks
from coinml.heads.protocol import Numbers
from coinml.tracking.mlflow_store import MlflowStore, home_store
from coinml.tracking.run_log import RunLog
from coinml.training import descriptions
from coinml.training.fingerprint import code_digest, digest_of
from coinml.training.run_context import RunContext
from coinml.training.sweep import Record, SweepResult, TrialLog, sweep
from coinml.training.train_head import model_name
from coinml.training.training_data import TrainingData

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TUNED_ON: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneReport:
    """A finished sweep.

    Attributes:
        head: One of `heads.kinds.HEADS`.
        run_id: MLflow run in which the trials are nested.
        result: What was found.
    """

    head: str
    run_id: str
    result: SweepResult

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)


def tune_head(
    head: str,
    data: TrainingData,
    *,
    trials: int,
    storage: Path,
    fixed: Mapping[str, Any] | None = None,
    store: MlflowStore | None = None,
    seed: int = 0,
    device: str = "cpu",
    drop_leaks: bool = False,
    context: RunContext | None = None,
    on_trial: Callable[[int], None] | None = None,
) -> TuneReport:
    """Sweep over a head's options and record every trial; a sweep that was killed continues.

    Args:
        head: One of `heads.kinds.HEADS`.
        data: Its training and validation videos are used.
        trials: Number of trials in all, those of earlier calls on the same data included.
        storage: SQLite file for optuna's trials.
        fixed: Options that every trial has; the others are tried.
        store: Where the runs go; by default this home's MLflow store.
        seed: Seed of all random numbers.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
        drop_leaks: Tune without the videos that are on a later side of the split as well.
        context: Tags for the run that holds the trials; its `on_step` is called after each epoch
            or setting, and an exception that it raises ends the sweep.
        on_trial: Called with the number of trials that are newly done.

    Raises:
        InvalidInputError: Too little data, or the sweep runs in another process.
    """
    table, context = data.table, context or RunContext()
    if drop_leaks:
        table = without_leaks(table, find_leaks(table, data.sha256s))
    train, val = tuning_samples(table, data.clips, classes=data.classes)
    name = _sweep_name(head, seed, train, table, fixed or {})
    with _sweep_run(head, data, name, train, store or home_store(), context) as (log, record):
        log.params(fixed or {})
        result = sweep(
            head,
            train,
            val,
            trials=trials,
            storage=storage,
            name=name,
            fixed=fixed,
            seed=seed,
            device=device,
            record=record,
            on_trial=on_trial,
        )
        _log_result(log, head, data, result)
    return TuneReport(head=head, run_id=log.run_id, result=result)


def tuning_samples(
    table: pd.DataFrame,
    clips: Mapping[str, npt.NDArray[np.float16]] | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> tuple[Samples, Samples]:
    """Train and val of a table; nothing but the class names depends on the other rows."""
    classes = classes or sorted(set(table["label"]))
    seen = table[table["split"].isin(TUNED_ON)]
    parts = split_samples(seen, classes, clips=clips, splits=TUNED_ON)
    return parts["train"], parts["val"]


def _sweep_name(
    head: str, seed: int, train: Samples, table: pd.DataFrame, fixed: Mapping[str, Any]
) -> str:
    """A digest of what the trials depend on; calls with the same one continue one sweep."""
    return digest_of(
        {
            "head": head,
            "seed": seed,
            "code": code_digest(),
            "classes": train.classes,
            "table": table_digest(table[table["split"].isin(TUNED_ON)]),
            **({"fixed": dict(fixed)} if fixed else {}),
        }
    )


@contextmanager
def _sweep_run(
    head: str,
    data: TrainingData,
    name: str,
    train: Samples,
    store: MlflowStore,
    context: RunContext,
) -> Iterator[tuple[RunLog, Record]]:
    """The sweep's run, which an earlier call may have begun, and what records its trials."""
    experiment = model_name(data.dataset.name, data.target)
    identity = {"sweep": name, "sweep_head": head}
    earlier = store.find_runs(experiment, identity, finished=False)
    with store.run(
        experiment,
        f"sweep {head} {len(train)}{train.things[0]}",
        tags={**context.tags, **identity, "kind": "sweep", "head": head},
        about=descriptions.experiment_description(data.dataset.name, data.target, experiment),
        run_id=earlier[0] if earlier else None,
    ) as log:

        @contextmanager
        def record(number: int, options: Mapping[str, Any]) -> Iterator[TrialLog]:
            tags = {
                "kind": "trial",
                "head": head,
                "sweep_run_id": log.run_id,
                "trial": str(number),
            }
            title = f"trial {number} {head}"
            with (
                store.run(experiment, title, tags=tags, parent_run_id=log.run_id) as child,
                child.epochs() as add,
            ):
                child.params(options)
                yield _TrialRun(child, add, context.on_step)

        yield log, record


def _log_result(log: RunLog, head: str, data: TrainingData, result: SweepResult) -> None:
    log.metrics(
        {
            "val_accuracy": result.val_accuracy,
            "val_loss": result.val_loss,
            "trials_completed": result.completed,
            "trials_pruned": result.pruned,
        }
    )
    log.describe(descriptions.sweep_description(head, data.dataset.name, data.target, result))
    # Tags and not parameters, which cannot change: a larger sweep may find a better trial.
    log.tags({"best_trial": result.trial, "best_options": dict(result.options)})


class _TrialRun:
    """Records a trial as an MLflow run."""

    def __init__(
        self, log: RunLog, add: Callable[[Numbers], None], on_step: Callable[[], None]
    ) -> None:
        self._log, self._add, self._on_step = log, add, on_step

    def step(self, numbers: Numbers) -> None:
        if numbers:
            self._add(numbers)
        self._on_step()

    def result(self, numbers: Numbers, *, pruned: bool) -> None:
        self._log.tags({"pruned": str(pruned).lower()})
        if numbers:
            self._log.metrics({f"best_{name}": value for name, value in numbers.items()})
