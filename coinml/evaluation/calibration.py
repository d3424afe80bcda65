"""Calibration: how far a head's scores are probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.evaluation.intervals import clustered_proportion

BINS = 15
"""Number of bins of equal width, as in Guo et al."""


def reliability(
    score: npt.NDArray[np.floating],
    correct: npt.NDArray[np.bool_],
    *,
    bins: int = BINS,
    groups: Sequence[object] | None = None,
) -> pd.DataFrame:
    """Accuracy by score of the predicted class.

    Args:
        score: Score of each video's predicted class, in [0, 1], shape (N,).
        correct: Whether the prediction is correct, shape (N,).
        bins: Number of bins of equal width.
        groups: Each video's group, where videos are not independent.

    Returns:
        One row per bin that has videos: `from, to, videos, score, accuracy, accuracy_low,
        accuracy_high`, where `score` is the mean of the bin.
    """
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    shared = np.asarray(groups if groups is not None else range(len(score)), dtype=str)
    rows = []
    for index in np.unique(place):
        here = place == index
        accuracy = clustered_proportion(correct[here], shared[here].tolist())
        rows.append(
            {
                "from": index / bins,
                "to": (index + 1) / bins,
                "videos": int(here.sum()),
                "score": float(score[here].mean()),
                "accuracy": accuracy.value,
                "accuracy_low": accuracy.low,
                "accuracy_high": accuracy.high,
            }
        )
    return pd.DataFrame(rows)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error: mean distance of score and accuracy, weighted by videos.

    With few videos it is above 0 by chance, even for calibrated scores.

    Source: Guo, C., Pleiss, G., Sun, Y. & Weinberger, K. Q. (2017). On calibration of modern
    neural networks. ICML.

    Args:
        table: As `reliability` returns it.
    """
    distance = (table["accuracy"] - table["score"]).abs()
    return float((distance * table["videos"]).sum() / table["videos"].sum())
