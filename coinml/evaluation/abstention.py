"""Abstaining: the score below which a head's answers are not taken, for a wanted precision."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ALPHA = 0.05
"""Chance that the answers above a threshold are less precise than wanted."""

_MOST_STARTS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A score from which answers are taken.

    Attributes:
        score: Answers with this score or a higher one are taken.
        precision: The wanted precision of these answers.
        taken: Number of videos with such a score, of those that chose it.
        right: Number of right answers among them.
        videos: Number of videos that chose it.
    """

    score: float
    precision: float
    taken: int
    right: int
    videos: int

    def __str__(self) -> str:
        return (
            f"answers with a score of {self.score:.3f} or more are taken: val chose it for a "
            f"precision of {self.precision:g}, from {self.videos:,} videos, of which "
            f"{self.taken:,} have such a score and {self.right:,} of these are right"
        )


def threshold_for(
    score: npt.NDArray[np.floating],
    correct: npt.NDArray[np.bool_],
    precision: float,
    *,
    alpha: float = ALPHA,
) -> Threshold | None:
    """The lowest score from which answers have a wanted precision; None if no score is shown to.

    The most precise-looking threshold of many is precise by chance. Here, thresholds are tested
    from the highest one down and only as long as each test succeeds, so that the answers above the
    result have the precision with confidence 1 - alpha, whatever the number of thresholds. There
    are several starts, each with its part of alpha: an error among the best scores then does not
    end the search.

    Source: Geifman, Y. & El-Yaniv, R. (2017). Selective classification for deep neural networks.
    NeurIPS (the binomial test of the answers above a score). Angelopoulos, A. N. et al. (2021).
    Learn then test: calibrating predictive algorithms to achieve risk control. arXiv:2110.01052
    (tests in a fixed order, with several starts).

    Args:
        score: Score of each video's predicted class, shape (N,); independent videos that the head
            was not fitted on.
        correct: Whether the prediction is correct, shape (N,).
        precision: The wanted share of right answers, in (0, 1).
        alpha: Chance of a result that is less precise.
    """
    from scipy.stats import binom

    order = np.argsort(-score, kind="stable")
    ranked, right = score[order], np.cumsum(correct[order])
    # A threshold lies between two scores: videos of equal score are taken together.
    counts = 1 + np.flatnonzero(np.append(ranked[1:] < ranked[:-1], len(ranked) > 0))
    starts = _starts(len(ranked), precision, alpha)
    best: int | None = None
    for start in starts:
        for count in counts[counts >= start]:
            if binom.sf(right[count - 1] - 1, count, precision) > alpha / len(starts):
                break
            best = max(best or 0, int(count))
    if best is None:
        return None
    return Threshold(
        score=float(ranked[best - 1]),
        precision=precision,
        taken=best,
        right=int(right[best - 1]),
        videos=len(ranked),
    )


def fewest_videos(precision: float, *, alpha: float = ALPHA) -> int:
    """Number of right answers without an error that it takes to show a precision."""
    return math.ceil(math.log(alpha) / math.log(precision))


def _starts(videos: int, precision: float, alpha: float) -> list[int]:
    """Numbers of best videos at which a search begins, as many as their tests can afford."""
    for searches in range(_MOST_STARTS, 0, -1):
        fewest = fewest_videos(precision, alpha=alpha / searches)
        starts = [fewest * 2**place for place in range(searches)]
        if starts[-1] <= videos:
            return starts
    return []
