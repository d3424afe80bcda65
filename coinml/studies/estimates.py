"""Accuracies and their differences, each with an interval over the videos and the seeds.

Answers are a matrix of shape (S, N): whether the head of seed s classified video i correctly.
Heads that draw no random numbers have one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError
from coinml.evaluation.clusters import clustered_mean, few_gains, members
from coinml.evaluation.intervals import Estimate, caveat, clustered_proportion

Right = npt.NDArray[np.bool_]
Groups = Sequence[object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The difference of a condition and the reference, on the same videos.

    Attributes:
        value: Accuracy of the condition minus the reference's, with its 95 % interval.
        p_value: Two-sided, from the t-test whose inversion is the interval: below 0.05 where the
            interval does not contain 0, and only there.
        lost: Videos that the reference classifies correctly and the condition does not; with
            several seeds, more often than the condition.
        gained: The reverse.
    """

    value: Estimate
    p_value: float
    lost: int
    gained: int

    @property
    def shown(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p_value < 0.05


def accuracy(right: Right, groups: Groups | None = None) -> Estimate:
    """Mean accuracy with a 95 % interval.

    Wilson's interval over the videos, or `clustered_proportion` over their groups, widened by the
    variation over seeds. For videos whose answer depends on the seed it assumes the largest
    variance, so it is conservative.

    Args:
        right: Shape (S, N).
        groups: Each video's group, where videos are not independent.

    Raises:
        InvalidInputError: There are no videos.
    """
    _check(right)
    found = clustered_proportion(right.mean(axis=0), groups or range(right.shape[1]))
    spread = _seed_error(right.mean(axis=1))
    return replace(
        found,
        low=max(0.0, found.value - math.hypot(found.value - found.low, spread)),
        high=min(1.0, found.value + math.hypot(found.high - found.value, spread)),
    )


def difference(right: Right, reference: Right, groups: Groups | None = None) -> Difference:
    """Accuracy minus the reference's on the same videos, in the same order.

    A t-test and its interval, whose variance is that over videos and, with several seeds, that over
    seeds. Test and interval are one procedure, so they cannot contradict each other. Over groups,
    the variance is that of the groups' sums, and neither the interval nor p is smaller than for
    independent videos.

    Args:
        right: Shape (S, N).
        reference: Shape (S', N); S' is S, or one of them is 1.
        groups: Each video's group, where videos are not independent.

    Raises:
        InvalidInputError: The two have different numbers of videos.
    """
    _check(right)
    if right.shape[1] != reference.shape[1]:
        raise InvalidInputError(
            f"paired answers of {right.shape[1]} and {reference.shape[1]} videos"
        )
    gain = right.mean(axis=0) - reference.mean(axis=0)
    by_seed = right.mean(axis=1) - reference.mean(axis=1)
    value, p_value = _crossed(gain, by_seed, np.arange(len(gain)))
    if groups is not None:
        member = members(groups)
        wider, larger = _crossed(gain, by_seed, member)
        value = replace(
            value,
            low=min(value.low, wider.low),
            high=max(value.high, wider.high),
            caveat=caveat(int(member.max()) + 1, few=few_gains(gain, member)),
        )
        p_value = max(p_value, larger)
    return Difference(
        value=value,
        p_value=p_value,
        lost=int((gain < 0).sum()),
        gained=int((gain > 0).sum()),
    )


def _crossed(
    gain: npt.NDArray[np.float64],
    by_seed: npt.NDArray[np.float64],
    member: npt.NDArray[np.intp],
) -> tuple[Estimate, float]:
    """A mean difference over videos and seeds: its interval, and the t-test's p.

    One lost and one gained video are added, so that the variance is not zero where both answer
    alike. The degrees of freedom are Satterthwaite's.

    Source: Bonett, D. G. & Price, R. M. (2012). Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data. Journal of Educational and
    Behavioral Statistics 37, 479-488; here with t, and on means over seeds.

    Args:
        gain: Mean difference of each video, shape (N,).
        by_seed: Mean difference of each seed, shape (S,).
        member: Index of each video's group, shape (N,).
    """
    from scipy.stats import t

    added = int(member.max()) + 1
    found = clustered_mean(
        np.concatenate([gain, [-1.0, 1.0]]), np.concatenate([member, [added, added + 1]])
    )
    seeds = len(by_seed)
    seeds_part = by_seed.var(ddof=1) / seeds if seeds > 1 else 0.0
    error = math.sqrt(found.variance + seeds_part)
    freedom = error**4 / (found.variance**2 / found.freedom + seeds_part**2 / max(seeds - 1, 1))
    centre, half = found.mean, float(t.ppf(0.975, freedom)) * error
    value = float(gain.mean())
    estimate = Estimate(
        value=value,
        low=max(-1.0, min(centre - half, value)),
        high=min(1.0, max(centre + half, value)),
    )
    return estimate, float(2 * t.sf(abs(centre) / error, freedom))


def _seed_error(means: npt.NDArray[np.float64]) -> float:
    """Half the 95 % interval of a mean over seeds."""
    n = len(means)
    if n < 2 or np.ptp(means) == 0:
        return 0.0
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1) * means.std(ddof=1) / math.sqrt(n))


def _check(right: Right) -> None:
    if right.ndim != 2 or 0 in right.shape:
        raise InvalidInputError(f"answers of shape {right.shape}: (seeds, videos) is needed")
