"""Tuning one head: a sweep whose trials are runs nested in one run of MLflow's.

The test videos are taken out of the table before anything else is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.records import Split, Target
from coinml.embedding_sets.table import Samples, split_samples, table_digest
from coinml.evaluation.leaks import drop_leaks as without_leaks
from coinml.evaluation.leaks import find_leaks
from coinml.heads.protocol import Numbers
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_log import RunLog
from coinml.training import descriptions
from coinml.training.fingerprint import code_digest, digest_of
from coinml.training.sweep import SweepResult, TrialLog, sweep
from coinml.training.train_head import model_name

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
    dataset: str,
    table: pd.DataFrame,
    *,
    target: Target = "task",
    trials: int,
    store: MlflowStore,
    storage: Path,
    classes: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    clips: Mapping[str, npt.NDArray[np.float16]] | None = None,
    sha256s: Mapping[str, str] | None = None,
    drop_leaks: bool = False,
    tags: Mapping[str, str] | None = None,
    on_trial: Callable[[int], None] | None = None,
    on_step: Callable[[], None] | None = None,
) -> TuneReport:
    """Sweep over a head's options and record every trial; a sweep that was killed goes on.

    Args:
        head: One of `heads.kinds.HEADS`.
        dataset: Its name, which the experiment bears.
        table: As `dataset.build_table` makes it.
        target: What the labels of the table tell apart.
        trials: So many in all, those of earlier calls on the same data included.
        store: Where the runs go.
        storage: SQLite file for optuna's trials.
        classes: The classes to tell apart, in order; by default those in the table, sorted.
        seed: Of everything random.
        device: For the heads that are networks.
        clips: The clips of each video of the table, for the head that looks at them.
        sha256s: Hash of each video's file, by which a video under two ids is found.
        drop_leaks: Tune without the videos that are on a later side of the split as well.
        tags: More tags for the run that holds the trials.
        on_trial: Called with the number of trials that are newly done.
        on_step: Called after each epoch or setting; what it raises ends the sweep.

    Raises:
        InvalidInputError: Too little data, or the sweep goes on in another process.
    """
    if drop_leaks:
        table = without_leaks(table, find_leaks(table, sha256s))
    train, val = tuning_samples(table, clips, classes=classes)
    ingredients = {
        "head": head,
        "seed": seed,
        "code": code_digest(),
        "classes": train.classes,
        "table": table_digest(table[table["split"].isin(TUNED_ON)]),
    }
    name = digest_of(ingredients)
    experiment = model_name(dataset, target)
    identity = {"sweep": name, "sweep_head": head}
    known = store.find_runs(experiment, identity, finished=False)
    with store.run(
        experiment,
        f"sweep {head}, {len(train):,} training videos",
        tags={**(tags or {}), **identity, "kind": "sweep", "head": head},
        about=descriptions.experiment_description(dataset, target, experiment),
        run_id=known[0] if known else None,
    ) as log:

        @contextmanager
        def record(number: int, options: Mapping[str, Any]) -> Iterator[TrialLog]:
            with (
                store.run(
                    experiment,
                    f"sweep {head}, trial {number}",
                    tags={
                        "kind": "trial",
                        "head": head,
                        "sweep_run_id": log.run_id,
                        "trial": str(number),
                    },
                    parent_run_id=log.run_id,
                ) as child,
                child.epochs() as add,
            ):
                child.params(options)
                yield _Recorded(child, add, on_step)

        result = sweep(
            head,
            train,
            val,
            trials=trials,
            storage=storage,
            name=name,
            seed=seed,
            device=device,
            record=record,
            on_trial=on_trial,
        )
        log.metrics(
            {
                "val_accuracy": result.val_accuracy,
                "val_loss": result.val_loss,
                "trials_completed": result.completed,
                "trials_pruned": result.pruned,
            }
        )
        log.describe(descriptions.sweep_description(head, dataset, target, result))
        # Tags, since a sweep that goes on may find another best, and parameters are for ever.
        log.tags({"best_trial": result.trial, "best_options": dict(result.options)})
    return TuneReport(head=head, run_id=log.run_id, result=result)


def tuning_samples(
    table: pd.DataFrame,
    clips: Mapping[str, npt.NDArray[np.float16]] | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> tuple[Samples, Samples]:
    """Train and val of a table; of the rest nothing but the names of the classes."""
    classes = classes or sorted(set(table["label"]))
    seen = table[table["split"].isin(TUNED_ON)]
    parts = split_samples(seen, classes, clips=clips, splits=TUNED_ON)
    return parts["train"], parts["val"]


class _Recorded:
    """A trial as a run."""

    def __init__(
        self, log: RunLog, add: Callable[[Numbers], None], on_step: Callable[[], None] | None
    ) -> None:
        self._log, self._add, self._on_step = log, add, on_step

    def step(self, numbers: Numbers) -> None:
        if numbers:
            self._add(numbers)
        if self._on_step is not None:
            self._on_step()

    def result(self, numbers: Numbers, *, pruned: bool) -> None:
        self._log.tags({"pruned": str(pruned).lower()})
        if numbers:
            self._log.metrics({f"best_{name}": value for name, value in numbers.items()})
