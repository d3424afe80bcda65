"""Hyperparameter sweeps; the only importer of optuna.

A sweep is given train and val only. Each trial is stored in optuna's database before the next one
starts, so a killed sweep continues; the trial that was running is run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import macro_f1
from coinml.heads.calibration import fit_temperature, val_rank
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import HeadKind, head_kind
from coinml.heads.protocol import Head, Numbers, head_input

logger = logging.getLogger(__name__)

_UNPRUNED_TRIALS = 5
_UNPRUNED_EPOCHS = 5
_OPTIONS, _LOSS = "options", "val_loss"


class TrialLog(Protocol):
    """Records one trial."""

    def step(self, numbers: Numbers) -> None:
        """Record an epoch's metrics; called without any after a setting of heads without epochs."""

    def result(self, numbers: Numbers, *, pruned: bool) -> None:
        """Record the trial's metrics on val."""


Record = Callable[[int, Mapping[str, Any]], AbstractContextManager[TrialLog]]
"""Called with a trial's number and options."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """The best trial of a sweep.

    Attributes:
        options: Options of the best trial, for `fit_head`.
        trial: Number of the best trial, from 0.
        val_accuracy: Its accuracy on val; of equal ones, the trial with the lower loss is best.
        val_loss: Its mean negative log-likelihood on val at the best temperature, in nats.
        completed: Number of completed trials.
        pruned: Number of trials that were stopped early.
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
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    record: Record | None = None,
    on_trial: Callable[[int], None] | None = None,
) -> SweepResult:
    """Try options of a head and find the best on val.

    The first trial is what would be trained without a sweep: of a head that tries settings one by
    one, its whole default search. So a sweep is never worse on val than none.

    Args:
        head: One of `heads.kinds.HEADS`.
        train: The samples that each trial is fitted on.
        val: The samples by which the trials are compared.
        trials: Number of trials in all, those of earlier calls with this name included.
        storage: SQLite file for the trials.
        name: Name of the sweep; the same name means the same data, head, fixed options and seed.
        fixed: Options that every trial has; the others are tried.
        seed: Seed of the options that are tried, and of each training.
        device: `cpu`, `cuda`, `cuda:1` or `auto`, for heads with epochs.
        record: Opens the record of a trial.
        on_trial: Called with the number of newly done trials, first with those of earlier calls;
            an exception that it raises ends the sweep.

    Raises:
        InvalidInputError: An unknown head, no trials, or the sweep runs in another process.
    """
    kind = head_kind(head)
    if trials < 1:
        raise InvalidInputError(f"{trials} trials: 1 or more are allowed")
    with _study(storage, name) as study:
        space = _Space(kind, fixed or {})
        _take_up(study, space.defaults())
        done = _done(study)
        if on_trial is not None and done:
            on_trial(min(len(done), trials))
        while len(done) < trials:
            _run_trial(study, space, train, val, seed=seed, device=device, record=record)
            done = _done(study)
            if on_trial is not None:
                on_trial(1)
        completed = [trial for trial in done[:trials] if trial.state == TrialState.COMPLETE]
        best = max(
            completed, key=lambda t: (*val_rank(t.value or 0.0, t.user_attrs[_LOSS]), -t.number)
        )
        return SweepResult(
            options=best.user_attrs[_OPTIONS],
            trial=best.number,
            val_accuracy=float(best.value or 0.0),
            val_loss=float(best.user_attrs[_LOSS]),
            completed=len(completed),
            pruned=len(done[:trials]) - len(completed),
        )


def sweeps_before(storage: Path, moment_s: float) -> list[str]:
    """Names of the sweeps in a file that began before a time.

    Args:
        storage: SQLite file of the trials.
        moment_s: Seconds since the epoch.
    """
    summaries = optuna.get_all_study_summaries(f"sqlite:///{storage}")
    return [
        one.study_name
        for one in summaries
        if one.datetime_start is None or one.datetime_start.timestamp() < moment_s
    ]


def forget_sweep(storage: Path, name: str) -> None:
    """Remove a sweep's trials; the file keeps its size, and later trials use the space."""
    optuna.delete_study(study_name=name, storage=f"sqlite:///{storage}")
    storage.with_name(f"{storage.name}.{name}.lock").unlink(missing_ok=True)


@contextmanager
def _study(storage: Path, name: str) -> Iterator[optuna.Study]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(storage.with_name(f"{storage.name}.{name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as err:
        raise InvalidInputError(f"sweep {name} runs in another process") from err
    # The tables are created by one process at a time, for all sweeps in the file.
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
    """Enqueue the defaults first; enqueue the trial of a killed process again."""
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(defaults))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _done(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


class _Space:
    """A head's search space beside options that are fixed."""

    def __init__(self, kind: HeadKind, fixed: Mapping[str, Any]) -> None:
        self.kind, self.fixed = kind, fixed
        self._space = kind.load_search_space()
        # By the name of a choice: the values that are left of it.
        self._left = {
            name: tuple(fixed[option])
            for name, option in self._space.within.items()
            if option in fixed
        }

    def defaults(self) -> dict[str, Any]:
        """Of what is drawn, without choices that are not left."""
        return {
            name: value
            for name, value in self._space.defaults.items()
            if value in self._left.get(name, (value,))
        }

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Options of a trial, the fixed ones among them."""
        drawn = self._space.draw(_Narrowed(trial, self._left) if self._left else trial)
        # What is drawn from a fixed list is one of its values.
        own = {self._space.within[name] for name in self._left}
        return {**drawn, **{n: value for n, value in self.fixed.items() if n not in own}}


class _Narrowed:
    """Draws from a trial, and some choices from the values that are left of them."""

    def __init__(self, trial: optuna.Trial, left: Mapping[str, Sequence[Any]]) -> None:
        self._trial, self._left = trial, left
        self.suggest_float, self.suggest_int = trial.suggest_float, trial.suggest_int

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._trial.suggest_categorical(name, self._left.get(name, choices))


def _run_trial(
    study: optuna.Study,
    space: _Space,
    train: Samples,
    val: Samples,
    *,
    seed: int,
    device: str,
    record: Record | None,
) -> None:
    # The seed depends on the number of finished trials, not on the sampler's state, so a sweep that
    # was killed continues with the same options.
    study.sampler = optuna.samplers.TPESampler(seed=1000 * seed + len(_done(study)))
    is_first, kind = not _done(study), space.kind
    trial = study.ask()
    # Drawn for the first trial too, since optuna learns from what is drawn.
    options = space.draw(trial)
    if is_first and not kind.has_epochs:
        options = dict(space.fixed)
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
                kind.name,
                train,
                val,
                options=options,
                seed=seed,
                device=device,
                calibrated=False,
                on_step=on_step,
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
    proba = fitted.predict_proba(head_input(fitted, val))
    predicted = proba.argmax(axis=1)
    return {
        "val_accuracy": float((predicted == val.y).mean()),
        "val_f1_macro": macro_f1(val.y, predicted, len(val.classes)),
        "val_loss": fit_temperature(proba, val.y)[1],
    }


class _NoLog:
    def step(self, numbers: Numbers) -> None:
        """Do nothing."""

    def result(self, numbers: Numbers, *, pruned: bool) -> None:
        """Do nothing."""


@contextmanager
def _no_record(_number: int, _options: Mapping[str, Any]) -> Iterator[TrialLog]:
    yield _NoLog()
