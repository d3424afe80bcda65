"""Means of rows that are not independent: the segments of a video, the videos of a person.

Groups are independent of each other, rows of one group are not. The variance of a mean is estimated
from the groups' sums (CR2), and the t distribution has the degrees of freedom that few and unequal
groups leave (Satterthwaite). `benchmarks/intervals.py` simulates how often the intervals cover.

Sources: Bell, R. M. & McCaffrey, D. F. (2002). Bias reduction in standard errors for linear
regression with multi-stage samples. Survey Methodology 28, 169-181. Miller, E. (2024). Adding error
bars to evals, arXiv:2411.00640 (clustered standard errors of an accuracy). Korn, E. L. & Graubard,
B. I. (1998). Confidence intervals for proportions with small expected number of positive counts
estimated from survey data. Survey Methodology 24, 193-201 (effective sample size).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Groups = Sequence[object]

FEW_GROUPS = 5
"""Fewer groups than that are too few to estimate a variance."""

FEW_FREEDOM = 7.5
"""With fewer degrees of freedom, intervals may cover in up to 99 % of cases
(`benchmarks/intervals.py`). Eight groups of equal size leave fewer, and so do about 25 groups whose
sizes differ as much as in a geometric distribution."""

_FEW_MOVED = 10
"""So may those of a difference that fewer groups show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteredMean:
    """A mean of rows in groups and how well it is known.

    Attributes:
        mean: Mean of the rows.
        variance: Of the mean, from the groups' sums.
        freedom: Degrees of freedom of the variance; 0 for a single group.
        groups: Number of groups.
        worth: Number of groups of equal size that are worth the groups.
    """

    mean: float
    variance: float
    freedom: float
    groups: int
    worth: float

    @property
    def quantile(self) -> float:
        """97.5 % quantile of the t distribution."""
        return t_quantile(self.freedom)


def clustered_mean(values: npt.NDArray[np.float64], member: npt.NDArray[np.intp]) -> ClusteredMean:
    """The mean of rows in groups with its variance (CR2) and degrees of freedom.

    Args:
        values: Shape (N,).
        member: Index of each row's group, as `members` returns it.
    """
    sizes = np.bincount(member).astype(float)
    weight, mean, variance = sizes / sizes.sum(), float(values.mean()), 0.0
    if len(sizes) > 1:
        sums = np.bincount(member, weights=values - mean)
        variance = float((sums**2 / (1 - weight)).sum()) / len(values) ** 2
    return ClusteredMean(
        mean=mean,
        variance=variance,
        freedom=freedom_of(sizes),
        groups=len(sizes),
        worth=float(1 / (weight @ weight)),
    )


def freedom_of(sizes: npt.NDArray[np.float64]) -> float:
    """Degrees of freedom of the variance of a mean over groups of these sizes, shape (G,).

    The smaller of those for independent rows and for rows of a group that are all alike: of
    unequal groups the large ones decide. 0 for a single group.
    """
    if len(sizes) < 2:
        return 0.0
    weight = sizes / sizes.sum()
    return min(_freedom(weight, sizes), _freedom(weight, sizes**2))


def few_gains(gain: npt.NDArray[np.float64], member: npt.NDArray[np.intp]) -> bool:
    """Whether a mean gain rests on so few groups that its interval may be too wide.

    Args:
        gain: Of each row, shape (N,).
        member: Index of each row's group, as `members` returns it.
    """
    moved = int(np.count_nonzero(np.bincount(member, weights=gain)))
    return freedom_of(np.bincount(member).astype(float)) < FEW_FREEDOM or moved < _FEW_MOVED


def members(groups: Groups) -> npt.NDArray[np.intp]:
    """Index of each row's group, from 0."""
    return np.asarray(np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1])


def t_quantile(freedom: float) -> float:
    """97.5 % quantile of the t distribution; infinite without degrees of freedom."""
    # Imported here: scipy takes a while, and most intervals do not need it.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975)) if freedom > 0 else math.inf


def _freedom(weight: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> float:
    """Satterthwaite's degrees of freedom of CR2 for a mean.

    For the residual sums r = (I - w 1') y of group sums y with variances v, the estimate is r' S r,
    S diagonal with 1 / (1 - w). Its degrees of freedom are tr(M)² / tr(M M), M the covariance of
    S^(1/2) r. The sums below are these traces, without the matrix.

    Args:
        weight: Share of the rows in each group, w, shape (G,).
        variance: Variance of each group's sum, v, up to a factor, shape (G,).
    """
    s, total = 1 / (1 - weight), variance.sum()
    shift = weight * (total * weight - 2 * variance)
    a, b, c = (float((s * x).sum()) for x in (weight**2, variance**2, weight * variance))
    trace = float((s * (variance + shift)).sum())
    square = (
        2 * a * b
        + (total * a) ** 2
        + 2 * c**2
        - 4 * total * a * c
        + float((s**2 * (variance**2 + 2 * variance * shift)).sum())
    )
    return float(trace**2 / square)
