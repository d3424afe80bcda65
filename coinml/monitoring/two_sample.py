"""Two-sample tests: whether a window of new videos comes from where the reference videos come from.

The p-values of permutation tests are exact for any number of videos and any distribution: under the
null hypothesis p <= a has at most the probability a.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_AT_ONCE = 2000
"""Permutations per matrix product: 10 MB for 600 videos."""

_SAME = 1e-9
"""Statistics of permutations that differ by less, relatively, are equal but for rounding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """A test's statistic and p-value.

    Attributes:
        statistic: Energy distance, chi-square, or the largest difference of distributions.
        p_value: Probability of such a statistic or a larger one without drift.
    """

    __test__ = False  # Pytest would take it for a class of tests.

    statistic: float
    p_value: float


def energy_test(
    reference: npt.NDArray[np.floating],
    window: npt.NDArray[np.floating],
    *,
    permutations: int = 1999,
    seed: int = 0,
) -> TestResult:
    """The permutation test of the energy distance between two samples of vectors.

    It has power against every kind of difference, and no bandwidth to choose.

    Source: Székely, G. J. & Rizzo, M. L. (2013). Energy statistics: a class of statistics based on
    distances. Journal of Statistical Planning and Inference 143, 1249-1272.

    Args:
        reference: Shape (N, D).
        window: Shape (M, D).
        permutations: Number of random permutations; no p-value is below 1 / (permutations + 1).
        seed: Seed of the permutations.
    """
    from scipy.spatial.distance import cdist

    both = np.concatenate([reference, window]).astype(np.float64)
    distances = cdist(both, both)
    of_rows, total = distances.sum(axis=1), distances.sum()
    n, m = len(reference), len(window)

    def energy(chosen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Of choices of m rows, each a column of 0 and 1: shape (N + M, B) to (B,)."""
        inside = np.einsum("nb,nb->b", chosen, distances @ chosen)
        crossing = of_rows @ chosen - inside
        outside = total - inside - 2 * crossing
        found: npt.NDArray[np.float64] = 2 * crossing / (n * m) - inside / m**2 - outside / n**2
        return found

    of_window = np.zeros((n + m, 1))
    of_window[n:] = 1
    generator = np.random.default_rng(seed)
    permuted = [
        energy(generator.permuted(np.repeat(of_window, count, axis=1), axis=0))
        for count in _batches(permutations)
    ]
    return _result(float(energy(of_window)[0]), np.concatenate(permuted))


def mix_test(
    reference: Sequence[str],
    window: Sequence[str],
    *,
    permutations: int = 1999,
    seed: int = 0,
) -> TestResult:
    """The permutation test of chi-square: whether two samples have the same mix of classes.

    Unlike the approximation by the chi-square distribution, it takes classes with few videos.
    scipy's `chi2_contingency` with a `PermutationMethod` gives the same, and takes 100 s for 180
    classes, 3,800 videos and 20,000 permutations.

    Args:
        reference: The class of each video, N of them.
        window: Likewise, M of them.
        permutations: As `energy_test`.
        seed: As `energy_test`.
    """
    _, member = np.unique([*reference, *window], return_inverse=True)
    counts = np.bincount(member)
    of_window = np.bincount(member[len(reference) :], minlength=len(counts))
    expected = counts * len(window) / len(member)
    # What is missing in one sample is in the other: both cells of a class differ by the same.
    weights = 1 / expected + 1 / (counts - expected)
    # So are the counts distributed when rows are permuted.
    permuted = np.random.default_rng(seed).multivariate_hypergeometric(
        counts, len(window), size=permutations
    )
    observed = float((of_window - expected) ** 2 @ weights)
    return _result(observed, (permuted - expected) ** 2 @ weights)


def confidence_test(
    reference: npt.NDArray[np.floating], window: npt.NDArray[np.floating]
) -> TestResult:
    """The Kolmogorov-Smirnov test of two samples of scores, of shapes (N,) and (M,)."""
    from scipy.stats import ks_2samp

    found = ks_2samp(reference, window)
    return TestResult(statistic=float(found.statistic), p_value=float(found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those <= a errs in any with probability a at most.

    Source: Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian
    Journal of Statistics 6, 65-70.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(order))
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * np.asarray(p_values)[order]), 1.0)
    return [float(one) for one in adjusted]


def _batches(permutations: int) -> Iterator[int]:
    for start in range(0, permutations, _AT_ONCE):
        yield min(_AT_ONCE, permutations - start)


def _result(observed: float, permuted: npt.NDArray[np.float64]) -> TestResult:
    as_large = int((permuted >= observed - _SAME * abs(observed)).sum())
    return TestResult(statistic=observed, p_value=(1 + as_large) / (1 + len(permuted)))
