"""How good a head is, how sure that is, and which of two heads is better.

Proportions (accuracy, coverage) get Wilson's score interval, macro-F1 a percentile
bootstrap over the videos. For a proportion the bootstrap is the worse of the two: it
shrinks to nothing at 0 and 1, so that three right answers out of three would look like
certainty.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.errors import InvalidInputError

TOP_K = 5
_CHUNK = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What one head does on one split.

    Attributes:
        n: Videos measured on.
        official_size: Videos that the split has officially, lost ones included.
        loss: Mean negative log-likelihood of the true class, in nats.
        accuracy: On the videos that are here.
        accuracy_missing_wrong: With every missing video counted as wrong.
        f1_macro: Mean F1 over the classes that occur or are predicted.
        top5_accuracy: The true class is among the five best scored.
        coverage: n / official_size.
        majority_rate: What always answering the most frequent class would score.
        confusion: Counts, int64 of shape (C, C): row true class, column predicted class.
        per_class: One row a class: `class, support, predicted, correct, precision, recall, f1`.
    """

    n: int
    official_size: int
    loss: float
    accuracy: Estimate
    accuracy_missing_wrong: Estimate
    f1_macro: Estimate
    top5_accuracy: Estimate
    coverage: Estimate
    majority_rate: float
    confusion: npt.NDArray[np.int64]
    per_class: pd.DataFrame

    def metrics(self, split: str) -> dict[str, float]:
        """The numbers under the names that MLflow gets: `test_accuracy_low` and so on."""
        numbers: dict[str, float] = {}
        for name in (
            "accuracy",
            "accuracy_missing_wrong",
            "f1_macro",
            "top5_accuracy",
            "coverage",
        ):
            estimate: Estimate = getattr(self, name)
            numbers[f"{split}_{name}"] = estimate.value
            numbers[f"{split}_{name}_low"] = estimate.low
            numbers[f"{split}_{name}_high"] = estimate.high
        numbers[f"{split}_loss"] = self.loss
        numbers[f"{split}_majority_rate"] = self.majority_rate
        return numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """McNemar's exact test on paired answers.

    Attributes:
        b: Videos that only the first head gets right.
        c: Videos that only the second head gets right.
        p_value: Two-sided, from the binomial distribution with probability 1/2.
    """

    b: int
    c: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two heads on the videos that both were measured on.

    Attributes:
        n: Common videos.
        accuracy_a: Of the first head on them.
        accuracy_b: Of the second head on them.
        difference: Accuracy of the second minus the first, with a paired 95 % bootstrap interval.
        mcnemar: The paired test.
        discordant: The videos that exactly one gets right:
            `video_id, label, predicted_a, predicted_b, right` ("a" or "b").
    """

    n: int
    accuracy_a: Estimate
    accuracy_b: Estimate
    difference: Estimate
    mcnemar: McNemar
    discordant: pd.DataFrame


def evaluate(
    y: npt.NDArray[np.int64],
    proba: npt.NDArray[np.floating],
    classes: Sequence[str],
    *,
    official_size: int | None = None,
    seed: int = 0,
    draws: int = 2000,
) -> Evaluation:
    """Measure a head's scores against the truth.

    Args:
        y: True class indices, shape (N,).
        proba: Scores that sum to one over the classes, shape (N, C).
        classes: The C class names.
        official_size: Videos in the official split, those that are not here included;
            by default N.
        seed: Of the bootstrap.
        draws: Resamplings of the bootstrap.

    Raises:
        InvalidInputError: No video, shapes that do not fit, or an official size below N.
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
    correct = int((predicted == y).sum())
    true_score = proba[np.arange(n), y]
    # A stable order breaks ties as argmax does, so that equal scores earn nothing by it.
    best = np.argsort(-proba, axis=1, kind="stable")[:, :TOP_K]
    in_top = int((best == y[:, None]).any(axis=1).sum())
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (y, predicted), 1)
    return Evaluation(
        n=n,
        official_size=official_size,
        loss=abs(float(np.log(np.clip(true_score.astype(np.float64), 1e-12, 1.0)).mean())),
        accuracy=proportion(correct, n),
        accuracy_missing_wrong=proportion(correct, official_size),
        f1_macro=_bootstrap_f1(y, predicted, n_classes, seed=seed, draws=draws),
        top5_accuracy=proportion(in_top, n),
        coverage=proportion(n, official_size),
        majority_rate=float(np.bincount(y).max() / n),
        confusion=confusion,
        per_class=_per_class(confusion, classes),
    )


def proportion(successes: int, n: int) -> Estimate:
    """A proportion with its 95 % score interval.

    Source: Wilson, E. B. (1927). Probable inference, the law of succession, and
    statistical inference. Journal of the American Statistical Association 22, 209-212.
    """
    z = NormalDist().inv_cdf(0.975)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may leave 1e-17 where the formula says 0, and likewise at 1.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(value=share, low=low, high=high)


def macro_f1(y: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int) -> float:
    """Mean F1 over the classes that occur or are predicted, as scikit-learn defines it."""
    support = np.bincount(y, minlength=n_classes)
    answered = np.bincount(predicted, minlength=n_classes)
    right = np.bincount(y[y == predicted], minlength=n_classes)
    return float(_macro_f1(right, support, answered))


def mcnemar(correct_a: npt.NDArray[np.bool_], correct_b: npt.NDArray[np.bool_]) -> McNemar:
    """Test whether two heads differ, from the videos that only one gets right.

    Source: McNemar, Q. (1947). Note on the sampling error of the difference between
    correlated proportions or percentages. Psychometrika 12, 153-157; the exact form.

    Raises:
        InvalidInputError: The two do not speak of the same videos.
    """
    if correct_a.shape != correct_b.shape:
        raise InvalidInputError(
            f"paired answers of {correct_a.shape[0]} and {correct_b.shape[0]} videos"
        )
    b = int((correct_a & ~correct_b).sum())
    c = int((correct_b & ~correct_a).sum())
    return McNemar(b=b, c=c, p_value=_binomial_p(b, c))


def compare(
    predictions_a: pd.DataFrame,
    predictions_b: pd.DataFrame,
    *,
    seed: int = 0,
    draws: int = 2000,
) -> Comparison:
    """Compare two heads on the videos that both answered.

    Args:
        predictions_a: `video_id, label, predicted` of the first, one split's rows.
        predictions_b: The same of the second.
        seed: Of the bootstrap.
        draws: Resamplings of the bootstrap.

    Raises:
        InvalidInputError: They have no video in common, or disagree about a video's label.
    """
    both = predictions_a[["video_id", "label", "predicted"]].merge(
        predictions_b[["video_id", "label", "predicted"]],
        on="video_id",
        suffixes=("_a", "_b"),
        validate="one_to_one",
    )
    if both.empty:
        raise InvalidInputError(
            f"no video in common ({len(predictions_a)} and {len(predictions_b)} predictions)"
        )
    unlike = both[both["label_a"] != both["label_b"]]
    if not unlike.empty:
        row = unlike.iloc[0]
        raise InvalidInputError(
            f"video {row['video_id']!r} is {row['label_a']!r} in one run and "
            f"{row['label_b']!r} in the other: they were not measured on the same labels"
        )
    correct_a = (both["predicted_a"] == both["label_a"]).to_numpy()
    correct_b = (both["predicted_b"] == both["label_b"]).to_numpy()
    n = len(both)
    gain = correct_b.astype(np.int64) - correct_a.astype(np.int64)
    shares = np.array([(gain == value).mean() for value in (-1, 0, 1)])
    counts = np.random.default_rng(seed).multinomial(n, shares, size=draws)
    low, high = np.quantile((counts[:, 2] - counts[:, 0]) / n, [0.025, 0.975])
    rows = both[correct_a != correct_b].rename(columns={"label_a": "label"})
    discordant = rows[["video_id", "label", "predicted_a", "predicted_b"]].assign(
        right=np.where(correct_a[correct_a != correct_b], "a", "b")
    )
    return Comparison(
        n=n,
        accuracy_a=proportion(int(correct_a.sum()), n),
        accuracy_b=proportion(int(correct_b.sum()), n),
        difference=Estimate(value=float(gain.mean()), low=float(low), high=float(high)),
        mcnemar=mcnemar(correct_a, correct_b),
        discordant=discordant.reset_index(drop=True),
    )


def _binomial_p(b: int, c: int) -> float:
    if b + c == 0:
        return 1.0
    # scipy.stats costs most of a second to import: only when a test is asked for.
    from scipy.stats import binomtest

    return float(binomtest(min(b, c), b + c, 0.5).pvalue)


def _macro_f1(
    right: npt.NDArray[np.number], support: npt.NDArray[np.number], answered: npt.NDArray[np.number]
) -> npt.NDArray[np.float64]:
    """Macro-F1 from per-class counts of shape (..., C)."""
    mass = np.asarray(support + answered, dtype=np.float64)
    f1 = np.divide(2.0 * right, mass, out=np.zeros_like(mass), where=mass > 0)
    present = (mass > 0).sum(axis=-1)
    return np.asarray(f1.sum(axis=-1) / np.maximum(present, 1))


def _bootstrap_f1(
    y: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    n_classes: int,
    *,
    seed: int,
    draws: int,
) -> Estimate:
    n = len(y)
    generator = np.random.default_rng(seed)
    value = macro_f1(y, predicted, n_classes)
    # A resampling touches counts only, so it is drawn over the cells (true, predicted)
    # that occur: far fewer than the videos, and the same distribution.
    cells, counts = np.unique(y * n_classes + predicted, return_counts=True)
    true_class, predicted_class = cells // n_classes, cells % n_classes
    by_true = np.equal.outer(true_class, np.arange(n_classes)).astype(np.float64)
    by_predicted = np.equal.outer(predicted_class, np.arange(n_classes)).astype(np.float64)
    by_right = by_true * (true_class == predicted_class)[:, None]
    scores = []
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        weight = generator.multinomial(n, counts / n, size=size).astype(np.float64)
        scores.append(_macro_f1(weight @ by_right, weight @ by_true, weight @ by_predicted))
    low, high = np.quantile(np.concatenate(scores), [0.025, 0.975])
    return Estimate(value=value, low=float(low), high=float(high))


def _per_class(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> pd.DataFrame:
    support, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    right = confusion.diagonal()

    def ratio(top: npt.NDArray[np.int64], bottom: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        # Undefined stays undefined: a class without test videos has no recall of 0.
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
