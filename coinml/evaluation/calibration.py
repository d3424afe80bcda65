"""Whether a head's scores can be taken for probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.evaluation.intervals import proportion

BINS = 15
"""As in Guo et al.; of equal width."""


def reliability(
    score: npt.NDArray[np.floating], correct: npt.NDArray[np.bool_], *, bins: int = BINS
) -> pd.DataFrame:
    """How often answers of about one score are right.

    Args:
        score: Score of each video's answer, in [0, 1], shape (N,).
        correct: Whether the answer is right, shape (N,).
        bins: Number of bins of equal width.

    Returns:
        One row a bin that has videos: `from, to, videos, score, accuracy, accuracy_low,
        accuracy_high`, where `score` is the mean of the bin.
    """
    place = np.minimum((score * bins).astype(np.int64), bins - 1)
    rows = []
    for index in np.unique(place):
        here = place == index
        accuracy = proportion(int(correct[here].sum()), int(here.sum()))
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
    """Expected calibration error: mean distance of score and accuracy, by videos.

    With few videos it is above 0 by chance alone.

    Source: Guo, C., Pleiss, G., Sun, Y. & Weinberger, K. Q. (2017). On calibration of modern
    neural networks. ICML.

    Args:
        table: As `reliability` makes it.
    """
    distance = (table["accuracy"] - table["score"]).abs()
    return float((distance * table["videos"]).sum() / table["videos"].sum())
