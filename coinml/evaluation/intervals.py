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

from coinml.evaluation.clusters import (
    FEW_FREEDOM,
    FEW_GROUPS,
    clustered_mean,
    freedom_of,
    members,
    t_quantile,
)

_Z = NormalDist().inv_cdf(0.975)
_FEW = 5.0
"""With fewer right or wrong answers, as independent ones, a variance cannot be estimated."""

_ENOUGH = 8.0
"""From so many of them on, an interval covers in about 95 % of cases, not more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: The number.
        low: Lower end of the interval.
        high: Upper end.
        caveat: Why the interval does not cover in 95 % of cases, where that is known.
    """

    value: float
    low: float
    high: float
    caveat: str = ""

    def __str__(self) -> str:
        said = f"; {self.caveat}" if self.caveat else ""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}{said}]"


def proportion(successes: int, n: int) -> Estimate:
    """A proportion with its 95 % score interval.

    Source: Wilson, E. B. (1927). Probable inference, the law of succession, and
    statistical inference. Journal of the American Statistical Association 22, 209-212.
    """
    return share_of(successes, n)


def share_of(part: float, whole: float) -> Estimate:
    """Like `proportion`, for amounts that need not be whole numbers."""
    low, high = score_interval(part / whole, whole)
    return Estimate(value=part / whole, low=low, high=high)


def clustered_proportion(
    hits: npt.NDArray[np.bool_ | np.floating], groups: Sequence[object], n: int | None = None
) -> Estimate:
    """A proportion of rows that come in groups, such as the segments of videos.

    Wilson's interval for the number of independent rows that have the variance, with the quantile
    of t; never narrower than for independent rows. Where right or wrong answers are too few for a
    variance, each group counts as one row at most, and the estimate says so.

    Args:
        hits: Whether each row counts, or the share of times that it does, shape (N,).
        groups: Each row's group.
        n: Denominator of the proportion; N by default, more where rows are missing.
    """
    member = members(groups)
    here, right = len(hits), float(hits.sum())
    n = here if n is None else n
    plain = share_of(right, n)
    if int(member.max()) + 1 == here:
        return plain
    found = clustered_mean(hits.astype(float), member)
    spread = found.mean * (1 - found.mean)
    size = spread / found.variance if spread > 0 and found.variance > 0 else found.worth
    missing, share = n / here, right / n
    ends = [
        (plain.low, plain.high),
        score_interval(share, size * missing, found.quantile),
    ]
    worth = min(size, here) * min(found.mean, 1 - found.mean)
    if worth < _FEW:
        ends.append(score_interval(share, min(size, found.worth) * missing))
    few = worth < _ENOUGH or found.freedom < FEW_FREEDOM
    return _union(share, ends, caveat=caveat(found.groups, few=few))


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
        groups: Each row's group, where rows are not independent; the jackknife leaves out groups,
            and the quantile is that of t. Never narrower than for independent rows.
    """
    member = None if groups is None else members(groups)
    if member is None or int(member.max()) + 1 == len(y):
        # Leaving out any video of a confusion matrix's cell has the same effect: one per cell.
        _, first, counts = np.unique(
            y * n_classes + predicted, return_index=True, return_counts=True
        )
        found = _jackknife(y, predicted, n_classes, np.split(first, len(first)), counts)
        return found.estimate(len(y), most=len(y))
    sizes = np.bincount(member)
    left_out = np.split(np.argsort(member, kind="stable"), np.cumsum(sizes)[:-1])
    found = _jackknife(y, predicted, n_classes, left_out, np.ones(len(sizes), dtype=np.int64))
    plain = macro_f1_estimate(y, predicted, n_classes)
    worth = len(y) ** 2 / float(sizes @ sizes)
    freedom = freedom_of(sizes.astype(float))
    estimate = found.estimate(worth, z=t_quantile(freedom))
    answers = found.size(found.value, worth) * min(found.value, 1 - found.value)
    ends = [(one.low, one.high) for one in (plain, estimate)]
    if answers < _FEW:
        size = min(found.size(found.value, worth), worth)
        ends.append(score_interval(found.value, size))
    return _union(
        found.value, ends, caveat=caveat(len(sizes), few=answers < _ENOUGH or freedom < FEW_FREEDOM)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Jackknife:
    """Macro-F1, and its variance and value without bias by the jackknife."""

    value: float
    variance: float
    unbiased: float

    def size(self, share: float, default: float) -> float:
        """The number of videos with which a proportion has this variance, or else `default`."""
        spread = share * (1 - share)
        return spread / self.variance if spread > 0 and self.variance > 0 else default

    def estimate(self, default: float, *, most: float = math.inf, z: float = _Z) -> Estimate:
        """The union of the intervals around both values, for sizes of at most `most`."""
        sizes = [(share, self.size(share, default)) for share in (self.value, self.unbiased)]
        ends = [score_interval(share, min(size, most), z) for share, size in sizes]
        return _union(self.value, ends)


def _jackknife(
    y: npt.NDArray[np.int64],
    predicted: npt.NDArray[np.int64],
    n_classes: int,
    left_out: Sequence[npt.NDArray[np.intp]],
    counts: npt.NDArray[np.int64],
) -> _Jackknife:
    """The jackknife of macro-F1.

    Args:
        y: True class indices, shape (N,).
        predicted: Predicted class indices, shape (N,).
        n_classes: Number of classes.
        left_out: The rows that are left out at a time.
        counts: How often each of them is left out.
    """
    right = np.bincount(y[y == predicted], minlength=n_classes)
    support = np.bincount(y, minlength=n_classes)
    answered = np.bincount(predicted, minlength=n_classes)
    value, times = _macro_f1(right, support, answered), int(counts.sum())
    if times == 1:
        return _Jackknife(value=value, variance=0.0, unbiased=value)
    without = np.array(
        [_macro_f1_without(right, support, answered, y[rows], predicted[rows]) for rows in left_out]
    )
    mean = float(counts @ without) / times
    return _Jackknife(
        value=value,
        variance=(times - 1) / times * float(counts @ (without - mean) ** 2),
        unbiased=min(max(value - (times - 1) * (mean - value), 0.0), 1.0),
    )


def score_interval(share: float, n: float, z: float = _Z) -> tuple[float, float]:
    """Wilson's interval for a share of n; n, an effective size, need not be a whole number.

    Args:
        share: The proportion.
        n: Its denominator.
        z: Quantile of the normal distribution, or of t; where it is infinite, nothing is known.
    """
    if math.isinf(z):
        return 0.0, 1.0
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may leave 1e-17 where the formula says 0, and likewise at 1.
    return 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half


def _union(value: float, ends: Sequence[tuple[float, float]], *, caveat: str = "") -> Estimate:
    """A value with the union of intervals."""
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return Estimate(value=value, low=low, high=high, caveat=caveat)


def caveat(groups: int, *, few: bool = False) -> str:
    """What limits an interval over groups; "" if nothing does."""
    if groups < FEW_GROUPS:
        return f"{groups} group{'s' if groups > 1 else ''}: too few for an interval"
    return "few independent answers: may be too wide" if few else ""


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
