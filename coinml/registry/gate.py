"""The promotion gate: whether a version may become the champion, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError, RegistryError
from coinml.evaluation.paired import compare
from coinml.tracking.mlflow_store import MlflowStore

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion

ALPHA = 0.05
"""Significance level of McNemar's test on the common val videos."""

COVERAGE_FLOOR = 0.5
"""Default for the least share of the official test videos that a champion is measured on."""


def judge(
    store: MlflowStore,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    *,
    coverage_floor: float,
    replace_lost: bool = False,
) -> tuple[bool, str]:
    """Decide whether a candidate passes. Val decides; test can only veto.

    A champion whose predictions are gone from MLflow (its run was deleted for good, or its files)
    cannot be compared. It stays the champion, and the reason says so, until a person decides with
    `replace_lost` that the next one is judged as if there were none.

    Args:
        store: Where the predictions of both are.
        candidate: A registered version.
        champion: The version that it would replace, None if there is no champion.
        coverage_floor: Least share of the official test videos that the candidate must have been
            measured on.
        replace_lost: Judge the candidate as a first champion if the champion's predictions are
            gone.

    Returns:
        Whether it passes, and the reason as a text.

    Raises:
        RegistryError: The candidate lacks the metrics that training writes to its tags.
        TransientError: MLflow does not answer.
    """
    if champion is None:
        passed, reason = _above_majority(candidate)
        return passed, f"the first whose {reason}" if passed else f"its {reason}"
    try:
        old = _predictions(store, champion)
        floor = number_of(champion, "test_accuracy_low")
    except (InvalidInputError, RegistryError) as err:
        lost = f"champion {champion.version}, which cannot be compared any more ({err})"
        if replace_lost:
            passed, reason = _above_majority(candidate)
            return passed, f"its {reason}; it {'replaces' if passed else 'was to replace'} {lost}"
        return False, (
            f"not compared with {lost}; restore its run or files, or replace it: `coinml promote "
            f"--version {candidate.version} --replace-lost`{_recorded(candidate, champion)}"
        )
    try:
        new = _predictions(store, candidate)
    except InvalidInputError as err:
        return False, f"its own predictions are gone ({err}); train it again"
    # Additional classes are allowed: they make the task harder, not easier.
    missing = sorted(set(old["label"]) - set(new["label"]))
    if missing:
        return False, (
            f"its classes are not those of champion {champion.version}: it lacks "
            f"{', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}; train it under another "
            "--name"
        )
    try:
        paired = compare(old[old["split"] == "val"], new[new["split"] == "val"])
    except InvalidInputError as err:
        return False, f"cannot be compared with champion {champion.version}: {err}"
    p, gain = paired.mcnemar.p_value, paired.difference.value
    against = f"champion {champion.version} on {paired.counted('common val')}"
    numbers = f"{gain:+.3f}, {paired.tested}"
    if gain <= 0 or p >= ALPHA:
        return False, f"not better than {against} ({numbers})"
    test = number_of(candidate, "test_accuracy")
    if test < floor:
        return False, (
            f"better than {against} ({numbers}), but its test accuracy {test:.3f} lies below the "
            f"champion's interval (from {floor:.3f})"
        )
    coverage = number_of(candidate, "test_coverage")
    if coverage < coverage_floor:
        return False, (
            f"better than {against} ({numbers}), but measured on {coverage:.0%} of the official "
            f"test {paired.things}; {coverage_floor:.0%} are needed"
        )
    return True, f"better than {against} ({numbers}) and not worse on test"


def _above_majority(candidate: ModelVersion) -> tuple[bool, str]:
    """Whether a version is better than the majority class, and how that is said of it."""
    low = number_of(candidate, "val_accuracy_low")
    majority = number_of(candidate, "val_majority_rate")
    above = low > majority
    lies = "lies" if above else "does not lie"
    return above, f"val interval, from {low:.3f}, {lies} above the majority class ({majority:.3f})"


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


def _predictions(store: MlflowStore, version: ModelVersion) -> pd.DataFrame:
    return store.read_table(str(version.run_id), "predictions")
