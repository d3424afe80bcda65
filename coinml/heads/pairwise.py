"""One-against-one support vector machines for many classes.

libsvm solves one binary problem per pair of classes: 16,110 for 180 classes. From a precomputed
kernel matrix it solves them quickly, but evaluating their decision functions takes it longer than
that. Here the decision functions are evaluated by a few matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_CACHE_MB = 500

_ROWS = 64
"""Videos evaluated at a time, so that their values for all pairs fit the processor's cache."""

_SLOPE = 4.0
"""Slope of the logistic function that turns a margin into a probability; the heads' calibration
corrects it."""

_MOST = 500.0
"""Bound of exponents, so that their exponentials are finite."""

Array = npt.NDArray[np.float64]


def solve(gram: Array, y: npt.NDArray[np.int64], c: float) -> PairwiseMachine:
    """Fit the binary machines of all pairs of the classes in `y`.

    Args:
        gram: Kernel values of the training videos, float64 (N, N). With videos sorted by class,
            it takes less than half the time.
        y: Classes, int64 (N,).
        c: Penalty of an error.
    """
    from sklearn.svm import SVC

    fitted = SVC(kernel="precomputed", C=c, cache_size=_CACHE_MB).fit(gram, y)
    # With two classes scikit-learn reverses libsvm's signs, so that the second class is positive.
    sign = -1.0 if len(fitted.classes_) == 2 else 1.0
    return PairwiseMachine(
        support=fitted.support_.astype(np.int64),
        counts=fitted.n_support_.astype(np.int64),
        dual_coef=sign * fitted.dual_coef_,
        intercept=sign * fitted.intercept_,
    )


def kernel_values(a: Array, b: Array, gamma: float | None) -> Array:
    """Kernel values of shape (len(a), len(b)): linear without gamma, else RBF."""
    return kernel_of_products(a @ b.T, (a * a).sum(axis=1), (b * b).sum(axis=1), gamma)


def with_winners(shares: Array, winners: npt.NDArray[np.int64]) -> Array:
    """Scores (N, C), in each row those of the winner and of the best class exchanged, in place."""
    rows, best = np.arange(len(shares)), shares.argmax(axis=1)
    shares[rows, winners], shares[rows, best] = shares[rows, best], shares[rows, winners].copy()
    return shares


def kernel_of_products(
    products: Array, squares_a: Array, squares_b: Array, gamma: float | None
) -> Array:
    """Kernel values from scalar products, which several gammas can share.

    Args:
        products: Scalar products, float64 (A, B); not changed.
        squares_a: Squared lengths, float64 (A,).
        squares_b: Likewise (B,).
        gamma: Of the RBF kernel; None for the linear one.
    """
    if gamma is None:
        return products
    values = np.multiply(products, -2.0)
    values += squares_a[:, None]
    values += squares_b[None, :]
    np.maximum(values, 0.0, out=values)
    values *= -gamma
    return np.asarray(np.exp(values, out=values))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairwiseMachine:
    """The binary machines of all pairs of C classes, which share M support vectors.

    Attributes:
        support: Rows of the training data that are support vectors, int64 (M,), sorted by class.
        counts: Number of support vectors of each class, int64 (C,).
        dual_coef: Float64 (C - 1, M); row r of a vector of class i is its weight against
            the r-th of the other classes, as libsvm lays it out.
        intercept: Float64 (C * (C - 1) / 2,), pair by pair: (0, 1), (0, 2), ….
    """

    support: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    dual_coef: Array
    intercept: Array

    def decision(self, kernel: Array, columns: npt.NDArray[np.int64] | None = None) -> Array:
        """One value per class, float64 (N, C), for kernel values of shape (N, M).

        The number of pairs that a class wins, plus less than a half for the margin, as
        scikit-learn's `decision_function`.

        Args:
            kernel: Kernel values of videos and support vectors.
            columns: The kernel's columns that are the support vectors; by default all.
        """
        answers = np.empty((len(kernel), len(self.counts)))
        for here, values in self._blocks(kernel, columns):
            answers[here] = self._votes(values)
        return answers

    def probabilities(self, kernel: Array, columns: npt.NDArray[np.int64] | None = None) -> Array:
        """Probabilities that are coupled from the pairs' margins, float64 (N, C).

        The margin f of class i against class j says that i has the probability
        1 / (1 + exp(-s f)) if one of the two is right; the classes' probabilities are those of
        Price's closed form, which needs no iteration. The class that wins the votes has the
        largest: where the two rules disagree, the first two change places.

        Sources: Wu, T.-F., Lin, C.-J. & Weng, R. C. (2004). Probability estimates for multi-class
        classification by pairwise coupling. JMLR 5, 975-1005 (section 3 compares the rules);
        Price, D., Knerr, S., Personnaz, L. & Dreyfus, G. (1995). Pairwise neural network
        classifiers with probabilistic outputs. NIPS 7.

        Args:
            kernel: Kernel values of videos and support vectors, (N, M).
            columns: The kernel's columns that are the support vectors; by default all.
        """
        shares = np.empty((len(kernel), len(self.counts)))
        winners = np.empty(len(kernel), dtype=np.int64)
        for here, values in self._blocks(kernel, columns):
            winners[here] = self._votes(values).argmax(axis=1)
            values *= -_SLOPE
            np.clip(values, -_MOST, _MOST, out=values)
            # A class against itself has the value 0, and so the 1 of the closed form.
            shares[here] = 1.0 / np.exp(values, out=values).sum(axis=1).T
        return with_winners(shares / shares.sum(axis=1, keepdims=True), winners)

    def _blocks(
        self, kernel: Array, columns: npt.NDArray[np.int64] | None
    ) -> Iterator[tuple[slice, Array]]:
        """The values of all pairs (C, C, n) for n videos at a time, and which these are."""
        for start in range(0, len(kernel), _ROWS):
            here = slice(start, start + _ROWS)
            rows = kernel[here]
            yield here, self._pairs(rows if columns is None else rows[:, columns])

    def _votes(self, values: Array) -> Array:
        """Votes and margins (N, C) from the values of pairs (C, C, N)."""
        classes = len(self.counts)
        # A tie goes to the first class of the pair, as in libsvm.
        first = np.triu(np.ones((classes, classes), dtype=bool), 1)[:, :, None]
        wins = ((values > 0) | ((values == 0) & first)).sum(axis=1, dtype=np.float64)
        margin = values.sum(axis=1)
        return np.asarray((wins + margin / (3.0 * (np.abs(margin) + 1.0))).T)

    def _pairs(self, kernel: Array) -> Array:
        """The decision value of class i against class j, (C, C, N)."""
        classes = len(self.counts)
        ends = np.cumsum(self.counts)
        half = np.zeros((classes, classes, len(kernel)))
        for i, (end, count) in enumerate(zip(ends, self.counts, strict=True)):
            own = slice(end - count, end)
            product = self.dual_coef[:, own] @ kernel[:, own].T
            half[i, :i], half[i, i + 1 :] = product[:i], product[i:]
        rows, columns = np.triu_indices(classes, 1)
        values = half + half.transpose(1, 0, 2)
        values[rows, columns] += self.intercept[:, None]
        values[columns, rows] = -values[rows, columns]
        return values
