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
) -> tuple[bool, str]:
    """Decide whether a candidate passes. Val decides; test can only veto.

    Args:
        store: Where the predictions of both are.
        candidate: A registered version.
        champion: The version that it would replace, None if there is no champion.
        coverage_floor: Least share of the official test videos that the candidate must have been
            measured on.

    Returns:
        Whether it passes, and the reason as a text.

    Raises:
        RegistryError: A version lacks the metrics that training writes to its tags.
    """
    if champion is None:
        low, majority = (
            number_of(candidate, "val_accuracy_low"),
            number_of(candidate, "val_majority_rate"),
        )
        if low > majority:
            return True, (
                f"the first whose val interval, from {low:.3f}, lies above the majority class "
                f"({majority:.3f})"
            )
        return False, (
            f"its val interval, from {low:.3f}, does not lie above the majority class "
            f"({majority:.3f})"
        )
    new, old = _predictions(store, candidate), _predictions(store, champion)
    # Additional classes are allowed: they make the task harder, not easier.
    lost = sorted(set(old["label"]) - set(new["label"]))
    if lost:
        return False, (
            f"its classes are not those of champion {champion.version}: it lacks "
            f"{', '.join(lost[:5])}{' …' if len(lost) > 5 else ''}; train it under another --name"
        )
    try:
        paired = compare(old[old["split"] == "val"], new[new["split"] == "val"])
    except InvalidInputError as err:
        return False, f"cannot be compared with champion {champion.version}: {err}"
    p, gain = paired.mcnemar.p_value, paired.difference.value
    against = f"champion {champion.version} on {paired.n} common val videos"
    numbers = f"{gain:+.3f}, McNemar p = {p:.3g}"
    if gain <= 0 or p >= ALPHA:
        return False, f"not better than {against} ({numbers})"
    test, floor = number_of(candidate, "test_accuracy"), number_of(champion, "test_accuracy_low")
    if test < floor:
        return False, (
            f"better than {against} ({numbers}), but its test accuracy {test:.3f} lies below the "
            f"champion's interval (from {floor:.3f})"
        )
    coverage = number_of(candidate, "test_coverage")
    if coverage < coverage_floor:
        return False, (
            f"better than {against} ({numbers}), but measured on {coverage:.0%} of the official "
            f"test videos; {coverage_floor:.0%} are needed"
        )
    return True, f"better than {against} ({numbers}) and not worse on test"


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
