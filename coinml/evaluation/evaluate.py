"""The metrics of a head on one split, with intervals, by class and by domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.errors import InvalidInputError
from coinml.evaluation.calibration import calibration_error, reliability
from coinml.evaluation.intervals import (
    Estimate,
    clustered_proportion,
    macro_f1_estimate,
    proportion,
)

TOP_K = 5
NO_DOMAIN = "(no domain)"
"""The domain of classes that are not in the taxonomy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The metrics of one head on one split.

    Attributes:
        n: Number of videos (or segments) measured on.
        groups: Number of groups of them that are independent of each other; n where all are.
        official_size: Number of videos of the split, those not collected included.
        loss: Mean negative log-likelihood of the true class, in nats.
        accuracy: Accuracy on the videos measured on.
        accuracy_missing_wrong: Accuracy with every missing video counted as wrong.
        accuracy_missing_right: The same with every missing video counted as right. Whatever the
            missing videos are like, the accuracy on all of them lies between the two.
            Source: Manski, C. F. (1989). Anatomy of the selection problem. Journal of Human
            Resources 24, 343-360.
        f1_macro: Mean F1 over the classes that occur or are predicted.
        top5_accuracy: Share of videos whose true class is among the five with the best scores; a
            class that only ties with the fifth is not. None where there are five classes or fewer,
            since it would always be 1.
        coverage: n / official_size.
        majority_rate: Accuracy of always predicting the most frequent class.
        calibration_error: Expected calibration error of the predicted classes' scores.
        confusion: Counts, int64 of shape (C, C): row true class, column predicted class.
        per_class: One row per class: `class, support, predicted, correct, precision, recall, f1`.
        reliability: One row per range of scores, as `calibration.reliability` returns it.
    """

    n: int
    groups: int
    official_size: int
    loss: float
    accuracy: Estimate
    accuracy_missing_wrong: Estimate
    accuracy_missing_right: Estimate
    f1_macro: Estimate
    top5_accuracy: Estimate | None
    coverage: Estimate
    majority_rate: float
    calibration_error: float
    confusion: npt.NDArray[np.int64]
    per_class: pd.DataFrame
    reliability: pd.DataFrame

    def metrics(self, split: str) -> dict[str, float]:
        """The numbers by their MLflow names: `test_accuracy_low` and so on."""
        numbers: dict[str, float] = {}
        for name in (
            "accuracy",
            "accuracy_missing_wrong",
            "accuracy_missing_right",
            "f1_macro",
            "top5_accuracy",
            "coverage",
        ):
            estimate: Estimate | None = getattr(self, name)
            if estimate is None:
                continue
            numbers[f"{split}_{name}"] = estimate.value
            numbers[f"{split}_{name}_low"] = estimate.low
            numbers[f"{split}_{name}_high"] = estimate.high
        if self.groups != self.n:
            numbers[f"{split}_groups"] = float(self.groups)
        numbers[f"{split}_loss"] = self.loss
        numbers[f"{split}_majority_rate"] = self.majority_rate
        numbers[f"{split}_calibration_error"] = self.calibration_error
        return numbers


def evaluate(
    y: npt.NDArray[np.int64],
    proba: npt.NDArray[np.floating],
    classes: Sequence[str],
    *,
    official_size: int | None = None,
    groups: Sequence[object] | None = None,
) -> Evaluation:
    """Measure a head's scores against the truth.

    Args:
        y: True class indices, shape (N,).
        proba: Scores that sum to one over the classes, shape (N, C).
        classes: The C class names.
        official_size: Number of videos of the split, those not collected included; by default
            N.
        groups: Each row's group, where rows are not independent: the video of a segment, or the
            person of a video. The intervals then account for the groups.

    Raises:
        InvalidInputError: No videos, shapes that do not match, or an official size below N.
    """
    n, n_classes = len(y), len(classes)
    official_size = n if official_size is None else official_size
    if n == 0:
        raise InvalidInputError("nothing to evaluate on: no videos")
    if proba.shape != (n, n_classes):
        raise InvalidInputError(
            f"scores of shape {proba.shape} for {n} videos and {n_classes} classes"
        )
    if official_size < n:
        raise InvalidInputError(f"official size {official_size}, but {n} videos were measured on")
    predicted = proba.argmax(axis=1)
    right = predicted == y
    # Rounding may give a score just above 1.
    answers = reliability(np.clip(proba.max(axis=1), 0.0, 1.0), right, groups=groups)
    true_score = proba[np.arange(n), y]
    # A tie earns nothing: a head with many scores of 0 has not named those classes. The predicted
    # class, which argmax takes among equals, is always in.
    in_top = right | ((proba >= true_score[:, None]).sum(axis=1) <= TOP_K)

    def share(hits: npt.NDArray[np.bool_], of: int) -> Estimate:
        if groups is None:
            return proportion(int(hits.sum()), of)
        return clustered_proportion(hits, groups, of)

    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (y, predicted), 1)
    return Evaluation(
        n=n,
        groups=n if groups is None else len(set(groups)),
        official_size=official_size,
        loss=abs(float(np.log(np.clip(true_score.astype(np.float64), 1e-12, 1.0)).mean())),
        accuracy=share(right, n),
        accuracy_missing_wrong=share(right, official_size),
        accuracy_missing_right=_complement(share(~right, official_size)),
        f1_macro=macro_f1_estimate(y, predicted, n_classes, groups=groups),
        top5_accuracy=share(in_top, n) if n_classes > TOP_K else None,
        coverage=proportion(n, official_size),
        majority_rate=float(np.bincount(y).max() / n),
        calibration_error=calibration_error(answers),
        confusion=confusion,
        per_class=_per_class(confusion, classes),
        reliability=answers,
    )


def by_domain(
    confusion: npt.NDArray[np.int64], classes: Sequence[str], domains: Mapping[str, str]
) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Sum a confusion matrix over the classes of each domain.

    Args:
        confusion: Counts, int64 of shape (C, C).
        classes: The C class names.
        domains: Domain by class.

    Returns:
        Counts, int64 of shape (D, D), and the names of the D domains.
    """
    of_class = [domain_of(name, domains) for name in classes]
    names = tuple(sorted(set(of_class)))
    member = np.array([[name == domain for name in names] for domain in of_class], dtype=np.int64)
    return member.T @ confusion @ member, names


def domain_of(name: str, domains: Mapping[str, str]) -> str:
    """A class's domain, or `NO_DOMAIN` where it is not in the taxonomy."""
    return domains.get(name, NO_DOMAIN)


def confused_pairs(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    """Which classes are predicted as which others, the most frequent pairs first.

    Args:
        confusion: Counts, int64 of shape (C, C).
        classes: The C class names.

    Returns:
        One row per pair that occurs: `true, predicted, videos, share` (of the true class's
        videos).
    """
    true, predicted = np.nonzero(confusion * (1 - np.eye(len(classes), dtype=np.int64)))
    counts = confusion[true, predicted]
    names = np.asarray(classes, dtype=object)
    pairs = pd.DataFrame(
        {
            "true": names[true],
            "predicted": names[predicted],
            "videos": counts,
            "share": counts / confusion.sum(axis=1)[true],
        }
    )
    order = ["videos", "share", "true", "predicted"]
    return pairs.sort_values(order, ascending=[False, False, True, True], ignore_index=True)


def _complement(share: Estimate) -> Estimate:
    """The share of all others."""
    return replace(share, value=1 - share.value, low=1 - share.high, high=1 - share.low)


def _per_class(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    support, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    right = confusion.diagonal()

    def ratio(top: npt.NDArray[np.int64], bottom: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        # NaN where the ratio is undefined: the recall of a class without test videos is not 0.
        nothing = np.full(len(classes), np.nan)
        return np.asarray(np.divide(top, bottom, out=nothing, where=bottom > 0))

    return pd.DataFrame(
        {
            "class": list(classes),
            "support": support,
            "predicted": answered,
            "correct": right,
            "precision": ratio(right, answered),
            "recall": ratio(right, support),
            "f1": ratio(2 * right, support + answered),
        }
    )
