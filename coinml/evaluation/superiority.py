"""Exact one-sided tests: is a head better than answering one class, or than another head?

All functions take numbers or arrays of equal shape. Counts are of independent units: videos, or
groups where videos come in groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Counts = int | npt.NDArray[np.int64]
Rates = float | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How many answers of a head are right, beside a classifier that always answers one class.

    Attributes:
        right: Number of right answers.
        n: Number of answers.
        majority_rate: Share of the most frequent class.
        units: What is counted: "videos" or "groups".
    """

    right: Counts
    n: Counts
    majority_rate: Rates
    units: str = "videos"

    @property
    def accuracy(self) -> Any:
        """Share of right answers."""
        return self.right / np.maximum(self.n, 1)

    @property
    def p_value(self) -> Any:
        """Probability of at least so many right answers at the majority class's rate (binomial)."""
        from scipy.stats import binom

        return binom.sf(np.asarray(self.right) - 1, self.n, self.majority_rate)


def answers_of(predictions: pd.DataFrame) -> Answers:
    """The answers of one split.

    Args:
        predictions: `label, predicted`; with `of_video` for segments and `group` for videos that
            share something. Each group then counts once, by its share of right rows, and the sum
            is rounded down.
    """
    if predictions.empty:
        return Answers(right=0, n=0, majority_rate=1.0)
    right = predictions["predicted"] == predictions["label"]
    column = next((one for one in ("group", "of_video") if one in predictions), None)
    if column is None:
        rate = float(predictions["label"].value_counts(normalize=True).iloc[0])
        return Answers(right=int(right.sum()), n=len(predictions), majority_rate=rate)
    groups = predictions[column]
    shares = pd.crosstab(groups, predictions["label"], normalize="index")
    return Answers(
        # The small number keeps 2.9999999 from being 2.
        right=math.floor(right.groupby(groups).mean().sum() + 1e-9),
        n=len(shares),
        majority_rate=float(shares.mean().max()),
        units="groups" if column == "group" else "videos",
    )


def p_better(losses: Counts, wins: Counts) -> Any:
    """One-sided p of McNemar's exact test: that the second head is better than the first.

    Args:
        losses: Number of units that only the first head classifies correctly.
        wins: Number of units that only the second head classifies correctly.
    """
    from scipy.stats import binom

    wins = np.asarray(wins)
    return binom.sf(wins - 1, wins + losses, 0.5)


def least_wins(level: float) -> int:
    """Least number of units that only the second head gets right, for `p_better` <= level.

    More are needed where the first head alone gets others right.
    """
    return math.ceil(-math.log2(level) - 1e-9)


def least_right(n: int, majority_rate: float, level: float) -> int | None:
    """Least number of right answers of n with p <= `level`; None where n are too few."""
    from scipy.stats import binom

    right = int(binom.isf(level, n, majority_rate)) + 1
    return right if right <= n else None
