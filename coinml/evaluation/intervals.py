"""95 % intervals of proportions and of macro-F1.

Proportions (accuracy, coverage) get Wilson's score interval. A bootstrap interval would have no
width at 0 and 1: three correct answers of three would look certain.

Macro-F1 is a mean over classes, and its percentile bootstrap fails where classes have few videos:
a class whose only video is not drawn drops out of the mean. On simulated test sets of 2,797 videos
in 180 classes its 95 % intervals covered the true value in 53 to 67 % of cases, with 500 videos in
3 to 13 %, and often did not contain the estimate itself; BCa intervals (82 and 36 %) were little
better. The jackknife estimates variance and bias without emptying more than one class at a time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def proportion(successes: int, n: int) -> Estimate:
    """A proportion with its 95 % score interval.

    Source: Wilson, E. B. (1927). Probable inference, the law of succession, and
    statistical inference. Journal of the American Statistical Association 22, 209-212.
    """
    return share_of(successes, n)


def share_of(part: float, whole: float) -> Estimate:
    """Like `proportion`, for amounts that need not be whole numbers."""
    low, high = _score_interval(part / whole, whole)
    return Estimate(value=part / whole, low=low, high=high)


def clustered_proportion(
    hits: npt.NDArray[np.bool_], groups: Sequence[object], n: int | None = None
) -> Estimate:
    """A proportion of rows that come in groups, such as the segments of videos.

    The variance of the groups' sums gives the effective sample size of the interval.

    Sources: as for `macro_f1_estimate`; Miller, E. (2024). Adding error bars to evals,
    arXiv:2411.00640 (clustered standard errors of an accuracy).

    Args:
        hits: Whether each row counts, shape (N,).
        groups: Each row's group.
        n: Denominator of the proportion; N by default, more where rows are missing.
    """
    here = len(hits)
    share = float(hits.mean())
    _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    n_groups = int(member.max()) + 1
    sums = np.bincount(member, weights=hits - share)
    # With one group, the variance between groups cannot be estimated.
    variance = n_groups / max(n_groups - 1, 1) * float(sums @ sums) / here**2
    size = _effective_size(share, variance, here) if variance > 0 else float(n_groups)
    n = here if n is None else n
    low, high = _score_interval(share * here / n, size * n / here)
    return Estimate(value=share * here / n, low=low, high=high)


def macro_f1(y: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], n_classes: int) -> float:
    """Mean F1 over the classes that occur or are predicted, as scikit-learn defines it."""
    support = np.bincount(y, minlength=n_classes)
    answered = np.bincount(predicted, minlength=n_classes)
    right = np.bincount(y[y == predicted], minlength=n_classes)
    return float(_macro_f1(right, support, answered))


def macro_f1_estimate(
    y: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    n_classes: int,
    *,
    groups: Sequence[object] | None = None,
) -> Estimate:
    """Macro-F1 with a 95 % interval.

    The jackknife's standard error gives an effective sample size: the number of videos for which a
    proportion would have the same standard error. The interval is the union of Wilson's intervals
    for that size around macro-F1 and around macro-F1 corrected for the jackknife's bias. It
    contains the estimate, stays within 0 and 1, and has a width where all answers are correct.

    Sources: Efron, B. & Tibshirani, R. J. (1993). An Introduction to the Bootstrap, chapter 11
    (jackknife). Korn, E. L. & Graubard, B. I. (1998). Confidence intervals for proportions with
    small expected number of positive counts estimated from survey data. Survey Methodology 24,
    193-201 (effective sample size).

    Args:
        y: True class indices, shape (N,).
        predicted: Predicted class indices, shape (N,).
        n_classes: Number of classes.
        groups: Each row's group, where rows are not independent; the jackknife leaves out groups.
    """
    n = len(y)
    right = np.bincount(y[y == predicted], minlength=n_classes)
    support = np.bincount(y, minlength=n_classes)
    answered = np.bincount(predicted, minlength=n_classes)
    value = float(_macro_f1(right, support, answered))
    if groups is None:
        # Leaving out any video of a confusion matrix's cell has the same effect: one per cell.
        cells, first, counts = np.unique(
            y * n_classes + predicted, return_index=True, return_counts=True
        )
        left_out = [first[i : i + 1] for i in range(len(cells))]
    else:
        _, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        left_out = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
        counts = np.ones(len(left_out), dtype=np.int64)
    times = int(counts.sum())
    if times == 1:
        low, high = _score_interval(value, 1)
        return Estimate(value=value, low=low, high=high)
    without = np.array(
        [_macro_f1_without(right, support, answered, y[rows], predicted[rows]) for rows in left_out]
    )
    mean = float(counts @ without) / times
    variance = (times - 1) / times * float(counts @ (without - mean) ** 2)
    unbiased = min(max(value - (times - 1) * (mean - value), 0.0), 1.0)
    # Without variance, the effective sample size is at most the number of groups.
    most = n if variance > 0 else times
    ends = [
        _score_interval(centre, _effective_size(centre, variance, most))
        for centre in (value, unbiased)
    ]
    return Estimate(
        value=value, low=min(low for low, _ in ends), high=max(high for _, high in ends)
    )


def _score_interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's interval for a share of n; n, an effective size, need not be a whole number."""
    z = _Z
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may leave 1e-17 where the formula says 0, and likewise at 1.
    return 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half


def _effective_size(share: float, variance: float, n: int) -> float:
    """The number of videos with which a proportion has this variance; at most n."""
    spread = share * (1 - share)
    return min(float(n), spread / variance) if spread > 0 and variance > 0 else float(n)


def _macro_f1(
    right: npt.NDArray[np.int64], support: npt.NDArray[np.int64], answered: npt.NDArray[np.int64]
) -> float:
    """Macro-F1 from counts by class, each of shape (C,)."""
    mass = support + answered
    f1 = np.divide(2.0 * right, mass, out=np.zeros(len(mass)), where=mass > 0)
    return float(f1.sum() / max(int((mass > 0).sum()), 1))


def _macro_f1_without(
    right: npt.NDArray[np.int64],
    support: npt.NDArray[np.int64],
    answered: npt.NDArray[np.int64],
    y: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
) -> float:
    """Macro-F1 without these rows."""
    n_classes = len(support)
    return _macro_f1(
        right - np.bincount(y[y == predicted], minlength=n_classes),
        support - np.bincount(y, minlength=n_classes),
        answered - np.bincount(predicted, minlength=n_classes),
    )
