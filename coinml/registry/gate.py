"""The promotion gate: whether a version may become the champion, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError, RegistryError
from coinml.evaluation.paired import compare
from coinml.evaluation.superiority import Answers, answers_of, least_right, least_wins
from coinml.registry.error_budget import Try
from coinml.registry.gate_checks import VAL_ALPHA, checks_of_challenger, checks_of_first, passes
from coinml.tracking.metric_names import own_metrics
from coinml.tracking.mlflow_store import MlflowStore

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

COVERAGE_FLOOR = 0.5
"""Default for the least share of the official test videos that a champion is measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether a version passes the gate.

    Attributes:
        passed: Whether it does.
        reason: Why, or why not.
        tested: Whether it could have passed a test by luck, so that it counts as a try.
    """

    passed: bool
    reason: str
    tested: bool = False


def judge(
    store: MlflowStore,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    offered: Try,
    *,
    coverage_floor: float,
    replace_lost: bool = False,
) -> Judgement:
    """Decide whether a candidate passes. Val decides; test can only veto.

    A champion whose predictions are gone from MLflow (its run was deleted for good, or its files)
    cannot be compared. It stays the champion, and the reason says so, until a person decides with
    `replace_lost` that the next one is judged as if there were none.

    Args:
        store: Where the predictions of both are.
        candidate: A registered version.
        champion: The version that it would replace, None if there is no champion.
        offered: The significance level of the tests, and which try it is.
        coverage_floor: Least share of the official test videos that the candidate must have been
            measured on.
        replace_lost: Judge the candidate as a first champion if the champion's predictions are
            gone.

    Raises:
        RegistryError: The candidate lacks the metrics that training writes to its tags.
        TransientError: MLflow does not answer.
    """
    lost = ""
    old = None
    if champion is not None:
        try:
            old = _predictions(store, champion)
            floor = _number_of_run(store, champion, "test_accuracy_low")
        except (InvalidInputError, RegistryError) as err:
            lost = f"champion {champion.version}, which cannot be compared any more ({err})"
            if not replace_lost:
                return Judgement(
                    passed=False,
                    reason=f"not compared with {lost}; restore its run or files, or replace it: "
                    f"`coinml promote --version {candidate.version} --replace-lost`"
                    f"{_recorded(candidate, champion)}",
                )
            old = None
    try:
        new = _predictions(store, candidate)
    except InvalidInputError as err:
        return Judgement(
            passed=False, reason=f"its own predictions are gone ({err}); train it again"
        )
    if champion is None or old is None:
        return _judge_first(store, candidate, new, offered, coverage_floor, lost)
    return _judge_challenger(store, candidate, new, champion, old, floor, offered, coverage_floor)


def _judge_first(
    store: MlflowStore,
    candidate: ModelVersion,
    predictions: pd.DataFrame,
    offered: Try,
    coverage_floor: float,
    lost: str,
) -> Judgement:
    """Compare a version with the majority class, on val and on test."""
    val, test = (answers_of(predictions[predictions["split"] == side]) for side in ("val", "test"))
    coverage = _number_of_run(store, candidate, "test_coverage")
    checks = checks_of_first(
        val, test, coverage, level=offered.level, coverage_floor=coverage_floor
    )
    least_val, least_test = (
        least_right(int(side.n), float(side.majority_rate), level)
        for side, level in ((val, VAL_ALPHA), (test, offered.level))
    )
    tested = least_val is not None and least_test is not None
    passed = bool(passes(checks))
    if not checks["val"]:
        reason = _beside_majority("val", val) + _showing("val", val, least_val)
    else:
        reason = f"{_beside_majority('val', val, above=True)}, "
        if not checks["test"]:
            reason += f"but its {_beside_majority('test', test)}"
            reason += _showing("test", test, least_test)
        elif not checks["coverage"]:
            things = "segments" if "of_video" in predictions else "videos"
            reason += f"but it was {_measured_on(coverage, coverage_floor, things)}"
        else:
            reason += f"and its {_beside_majority('test', test, above=True)}"
    if lost:
        reason += f"; it {'replaces' if passed else 'was to replace'} {lost}"
    return Judgement(
        passed=passed,
        reason=f"{'the first whose' if passed and not lost else 'its'} {reason}"
        f"{_as_try(offered, tested, offered.level, where=' on test')}",
        tested=tested,
    )


def _judge_challenger(
    store: MlflowStore,
    candidate: ModelVersion,
    new: pd.DataFrame,
    champion: ModelVersion,
    old: pd.DataFrame,
    floor: float,
    offered: Try,
    coverage_floor: float,
) -> Judgement:
    """Compare a version with the champion, on the val videos that both were measured on."""
    # Additional classes are allowed: they make the task harder, not easier.
    missing = sorted(set(old["label"]) - set(new["label"]))
    if missing:
        return Judgement(
            passed=False,
            reason=f"its classes are not those of champion {champion.version}: it lacks "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; train it under another "
            "--name",
        )
    old, new = old[old["split"] == "val"], new[new["split"] == "val"]
    try:
        paired = compare(old, new)
    except InvalidInputError as err:
        return Judgement(
            passed=False, reason=f"cannot be compared with champion {champion.version}: {err}"
        )
    test = number_of(candidate, "test_accuracy")
    coverage = _number_of_run(store, candidate, "test_coverage")
    p_value = paired.mcnemar.p_better
    ratio = _settings_ratio(store, candidate, champion)
    checks = checks_of_challenger(
        p_value,
        test,
        floor,
        coverage,
        level=offered.level,
        coverage_floor=coverage_floor,
        settings_ratio=ratio,
    )
    level = offered.level / ratio
    needed = least_wins(level)
    tested = paired.errors_a >= needed
    against = (
        f"champion {champion.version} on {paired.counted('common val')} "
        f"({paired.difference.value:+.3f}, {paired.tested}, one-sided {p_value:.3g})"
    )
    if not checks["val"]:
        reason = (
            f"not better than {against}; they could show a gain from {needed} {paired.units} up"
        )
        if not tested:
            reason += (
                f", and the champion is wrong in only {paired.errors_a}: collect more val videos, "
                f"or decide yourself: `coinml promote --version {candidate.version} --because TEXT`"
            )
    elif not checks["test"]:
        reason = (
            f"better than {against}, but its test accuracy {test:.3f} lies below the champion's "
            f"interval (from {floor:.3f})"
        )
    elif not checks["coverage"]:
        measured = _measured_on(coverage, coverage_floor, paired.things)
        reason = f"better than {against}, but {measured}"
    else:
        reason = f"better than {against} and not worse on test"
    reason += _as_try(offered, tested, level)
    if ratio > 1:
        reason += f", since val chose it from {ratio:.3g} times as many settings as the champion"
    return Judgement(passed=bool(passes(checks)), reason=reason, tested=tested)


def _beside_majority(split: str, answers: Answers, *, above: bool = False) -> str:
    lies = "lies" if above else "does not lie"
    return (
        f"{split} accuracy {answers.accuracy:.3f} {lies} above the majority class "
        f"({answers.majority_rate:.3f}) beyond chance (p = {answers.p_value:.2g})"
    )


def _showing(split: str, answers: Answers, least: int | None) -> str:
    what = f"these {answers.n} {split} {answers.units}"
    if least is None:
        return f"; {what} could not show it with any answers"
    return f"; {what} could show it from {least} right answers up"


def _measured_on(coverage: float, coverage_floor: float, things: str) -> str:
    return (
        f"measured on {coverage:.0%} of the official test {things}; {coverage_floor:.0%} are needed"
    )


def _as_try(offered: Try, tested: bool, level: float, where: str = "") -> str:
    if not tested:
        return f"; not counted as a try, since only p up to {level:.2g} would pass{where}"
    return f"; try {offered.number}, p up to {level:.2g} passes{where}"


def _settings_ratio(store: MlflowStore, candidate: ModelVersion, champion: ModelVersion) -> float:
    """From how many times as many settings the candidate was chosen; 1 if that is not known."""
    try:
        new, old = (
            _number_of_run(store, version, "settings_tried") for version in (candidate, champion)
        )
    except (InvalidInputError, RegistryError):
        return 1.0
    return max(1.0, new / max(old, 1.0))


def _recorded(candidate: ModelVersion, champion: ModelVersion) -> str:
    """Val accuracy of both as registered, which may be of different videos."""
    try:
        new, old = number_of(candidate, "val_accuracy"), number_of(champion, "val_accuracy")
    except RegistryError:
        return ""
    return f" (val accuracy when registered: {new:.3f}, the champion's {old:.3f})"


def number_of(version: ModelVersion, tag: str) -> float:
    """The number in a version's tag.

    Raises:
        RegistryError: The tag is missing or not a number: coinml did not register the version.
    """
    try:
        return float(version.tags[tag])
    except (KeyError, ValueError) as err:
        raise RegistryError(
            f"version {version.version} of {version.name} has no number in its tag {tag!r}; "
            "it was not registered by coinml"
        ) from err


def _number_of_run(store: MlflowStore, version: ModelVersion, name: str) -> float:
    """A metric or the number in a tag of a version's run; versions of an earlier coinml have it.

    Raises:
        RegistryError: Neither has it, or it is not a number.
        InvalidInputError: There is no such run.
    """
    if name in version.tags:
        return number_of(version, name)
    run = store.read_run(str(version.run_id)).data
    try:
        numbers: dict[str, str | float] = {**run.tags, **own_metrics(run.metrics)}
        return float(numbers[name])
    except (KeyError, ValueError) as err:
        raise RegistryError(f"run {version.run_id} has no number {name!r}") from err


def _predictions(store: MlflowStore, version: ModelVersion) -> pd.DataFrame:
    return store.read_table(str(version.run_id), "predictions")
