"""Abstaining: the score below which a head's answers are not taken, for a wanted precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.errors import InvalidInputError
from coinml.evaluation.predictions import independent_rows

PRECISIONS = (0.8, 0.9, 0.95, 0.98, 0.99)
"""Precisions whose thresholds a training records."""

SCORE_DIGITS = 6
"""Digits of an answer's score; a threshold is chosen by scores that are rounded alike."""

ALPHA = 0.05
"""Chance that the answers above a threshold are less precise than wanted."""

_MOST_STARTS = 5
_SHOWN_PRECISIONS = tuple(round(0.99 - step / 100, 2) for step in range(50))


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ValAnswers:
    """A head's answers on val, by which thresholds are chosen.

    Attributes:
        score: Score of each video's predicted class, as rounded as in an answer, shape (N,).
        correct: Whether the prediction is correct, shape (N,).
    """

    score: npt.NDArray[np.float64]
    correct: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, predictions: pd.DataFrame) -> ValAnswers:
        """Those in a run's table of predictions: one video of a group, one segment of a video."""
        val = independent_rows(predictions[predictions["split"] == "val"])
        return cls(
            score=val["score"].to_numpy(dtype=float).round(SCORE_DIGITS),
            correct=(val["label"] == val["predicted"]).to_numpy(dtype=bool),
        )

    @classmethod
    def from_dict(cls, described: Mapping[str, Any]) -> ValAnswers:
        """From what `as_dict` returns."""
        return cls(
            score=np.array(described["score"], dtype=float),
            correct=np.array(described["correct"], dtype=bool),
        )

    def as_dict(self) -> dict[str, list[float] | list[bool]]:
        """Plain values."""
        return {"score": self.score.tolist(), "correct": self.correct.tolist()}

    def threshold(self, precision: float, *, model: str = "this model") -> Threshold:
        """The lowest score from which answers have a precision, with 95 % confidence.

        Args:
            precision: The wanted share of right answers among those that are taken.
            model: What an error calls the model.

        Raises:
            InvalidInputError: The precision is not between 0 and 1, or val cannot show it.
        """
        if not 0 < precision < 1:
            raise InvalidInputError(f"precision {precision:g}: a number between 0 and 1 is allowed")
        found = threshold_for(self.score, self.correct, precision)
        if found is not None:
            return found
        within = next(
            (
                one
                for one in _SHOWN_PRECISIONS
                if one < precision and threshold_for(self.score, self.correct, one)
            ),
            None,
        )
        raise InvalidInputError(
            f"precision {precision:g}: the {len(self.score):,} val videos of {model}, "
            f"{self.correct.sum():,} of them answered right, show no score that keeps it with "
            f"{1 - ALPHA:.0%} confidence; it takes at least {fewest_videos(precision):,} best "
            "answers without an error. "
            + (f"They show {within:g}" if within else "They show no precision of 0.5 or more")
        )

    def table(self) -> pd.DataFrame:
        """The thresholds of `PRECISIONS`: `precision, score, taken, right, videos`, one row each.

        `score` and what follows from it are missing where val cannot show a precision.
        """
        rows = []
        for precision in PRECISIONS:
            found = threshold_for(self.score, self.correct, precision)
            rows.append(
                {
                    "precision": precision,
                    "score": found.score if found else None,
                    "taken": found.taken if found else None,
                    "right": found.right if found else None,
                    "videos": len(self.score),
                }
            )
        return pd.DataFrame(rows).astype({"score": float, "taken": "Int64", "right": "Int64"})


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
        tested = counts[counts >= start]
        fails = binom.sf(right[tested - 1] - 1, tested, precision) > alpha / len(starts)
        passed = tested[: fails.argmax()] if fails.any() else tested
        if len(passed):
            best = max(best or 0, int(passed[-1]))
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
