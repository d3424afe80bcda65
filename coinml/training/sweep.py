"""Hyperparameter sweeps; the only importer of optuna.

A sweep is given train and val and nothing else. Its trials are on record in a database of
optuna's before the next one begins, so that a sweep that was killed goes on where it was: the
trial that it was killed in is tried again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import macro_f1
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import head_kind
from coinml.heads.protocol import Head, Numbers, head_input

logger = logging.getLogger(__name__)

_UNPRUNED_TRIALS = 5
_UNPRUNED_EPOCHS = 5
_OPTIONS, _LOSS = "options", "val_loss"


class TrialLog(Protocol):
    """Where one trial is written down."""

    def step(self, numbers: Numbers) -> None:
        """An epoch's numbers; none for a setting of a head that has no epochs."""

    def result(self, numbers: Numbers, *, pruned: bool) -> None:
        """What the trial came to on val."""


Record = Callable[[int, Mapping[str, Any]], AbstractContextManager[TrialLog]]
"""Called with a trial's number and options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        options: Of the best trial, for `fit_head`.
        trial: Its number, from 0.
        val_accuracy: Its accuracy; of equal ones the lower `val_loss` is best.
        val_loss: Mean negative log-likelihood of val, in nats.
        completed: Trials that came to their end.
        pruned: Trials that were given up early.
    """

    options: Mapping[str, Any]
    trial: int
    val_accuracy: float
    val_loss: float
    completed: int
    pruned: int


def sweep(
    head: str,
    train: Samples,
    val: Samples,
    *,
    trials: int,
    storage: Path,
    name: str,
    seed: int = 0,
    device: str = "cpu",
    record: Record | None = None,
    on_trial: Callable[[int], None] | None = None,
) -> SweepResult:
    """Try options of a head and say which val likes best; the first trial is the defaults.

    Args:
        head: One of `heads.kinds.HEADS`.
        train: What each trial learns from.
        val: What each trial is judged by.
        trials: So many in all, those of earlier calls with this name included.
        storage: SQLite file for the trials.
        name: Of the sweep: the same data, head and seed.
        seed: Of the options that are tried, and of each training.
        device: For the heads that are networks.
        record: Where trials are written down.
        on_trial: Called with the number of trials that are newly done, first with those of
            earlier calls; what it raises ends the sweep.

    Raises:
        InvalidInputError: An unknown head, no trials, or the sweep goes on in another process.
    """
    kind = head_kind(head)
    if trials < 1:
        raise InvalidInputError(f"{trials} trials: 1 or more are allowed")
    with _study(storage, name) as study:
        _take_up(study, kind.load_search_space().defaults)
        done = _done(study)
        if on_trial is not None and done:
            on_trial(min(len(done), trials))
        while len(done) < trials:
            _run_trial(study, head, train, val, seed=seed, device=device, record=record)
            done = _done(study)
            if on_trial is not None:
                on_trial(1)
        completed = [trial for trial in done[:trials] if trial.state == TrialState.COMPLETE]
        best = max(completed, key=lambda t: (t.value, -t.user_attrs[_LOSS], -t.number))
        return SweepResult(
            options=best.user_attrs[_OPTIONS],
            trial=best.number,
            val_accuracy=float(best.value or 0.0),
            val_loss=float(best.user_attrs[_LOSS]),
            completed=len(completed),
            pruned=len(done[:trials]) - len(completed),
        )


@contextmanager
def _study(storage: Path, name: str) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(storage.with_name(f"{storage.name}.{name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as err:
        raise InvalidInputError(f"sweep {name} goes on in another process") from err
    # One at a time makes the tables, whatever sweep it is for.
    with lock:
        with FileLock(storage.with_name(f"{storage.name}.lock")):
            database = optuna.storages.RDBStorage(f"sqlite:///{storage}")
            study = optuna.create_study(
                study_name=name,
                storage=database,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(_UNPRUNED_TRIALS, _UNPRUNED_EPOCHS),
            )
        try:
            yield study
        finally:
            database.engine.dispose()


def _take_up(study: optuna.Study, defaults: Mapping[str, Any]) -> None:
    """Begin with the defaults; put what a killed process was at in line again."""
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(defaults))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def _run_trial(
    study: optuna.Study,
    head: str,
    train: Samples,
    val: Samples,
    *,
    seed: int,
    device: str,
    record: Record | None,
) -> None:
    # By what is done, not by a state of the sampler's, so that a sweep that was killed goes on
    # with what it would have tried.
    study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + len(_done(study)))
    trial = study.ask()
    options = head_kind(head).load_search_space().draw(trial)
    trial.set_user_attr(_OPTIONS, options)
    epoch = 0
    with (record or _no_record)(trial.number, options) as log:

        def on_step(numbers: Numbers) -> None:
            nonlocal epoch
            log.step(numbers)
            if not numbers:
                return
            epoch += 1
            trial.report(numbers["val_accuracy"], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        try:
            fitted = fit_head(
                head, train, val, options=options, seed=seed, device=device, on_step=on_step
            )
        except optuna.TrialPruned:
            log.result({}, pruned=True)
            study.tell(trial, state=TrialState.PRUNED)
            return
        judged = _judge(fitted, val)
        log.result(judged, pruned=False)
        trial.set_user_attr(_LOSS, judged["val_loss"])
        study.tell(trial, judged["val_accuracy"])


def _judge(fitted: Head, val: Samples) -> dict[str, float]:
    proba = fitted.predict_proba(head_input(fitted, val)).astype(np.float64)
    predicted = proba.argmax(axis=1)
    of_truth = np.clip(proba[np.arange(len(val)), val.y], 1e-12, 1.0)
    return {
        "val_accuracy": float((predicted == val.y).mean()),
        "val_f1_macro": macro_f1(val.y, predicted, len(val.classes)),
        "val_loss": float(-np.log(of_truth).mean()),
    }


class _NoLog:
    def step(self, numbers: Numbers) -> None:
        """Forget it."""

    def result(self, numbers: Numbers, *, pruned: bool) -> None:
        """Forget it."""


@contextmanager
def _no_record(_number: int, _options: Mapping[str, Any]) -> Iterator[TrialLog]:
    yield _NoLog()
