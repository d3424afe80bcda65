"""Accuracy over the folds of a cross-validation, with an interval that allows for their dependence.

Any two folds share most of their training videos, and repeats share all: their variance alone is
far too small. In simulations with 40 to 300 videos and five folds, the usual t interval over three
repeats covers in 65 to 83 % of cases, Wilson's interval of all videos in 90 to 95 %, and this one
in 95 to 98 % (`python -m benchmarks.folds`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coinml.evaluation.clusters import t_quantile
from coinml.evaluation.intervals import Estimate, caveat, score_interval


def accuracy_over_folds(
    right: npt.NDArray[np.floating], sizes: npt.NDArray[np.integer], *, groups: int, folds: int
) -> Estimate:
    """Mean accuracy over folds and repeats, with a 95 % interval.

    The variance over the J folds is multiplied by 1 / J + 1 / (folds - 1), the last being the
    number of test videos a training video. The interval is Wilson's for the number of videos that
    have this variance, with the quantile of t.

    Source: Nadeau, C. & Bengio, Y. (2003). Inference for the generalization error. Machine
    Learning 52, 239-281; for repeats, Bouckaert, R. R. & Frank, E. (2004). Evaluating the
    replicability of significance tests for comparing learning algorithms. PAKDD.

    Args:
        right: Number of videos that are classified correctly in each fold of each repeat, shape
            (J,).
        sizes: Number of videos in each of them.
        groups: Number of independent groups among the videos.
        folds: Folds of a repeat.
    """
    share, of_fold = float(right.sum() / sizes.sum()), right / sizes
    n = float(sizes.sum()) * folds / len(sizes)
    variance = float(of_fold.var(ddof=1)) * (1 / len(sizes) + 1 / (folds - 1))
    spread = share * (1 - share)
    # Without a variance, each group may be worth no more than one video.
    size = min(spread / variance, n) if spread > 0 and variance > 0 else float(groups)
    low, high = score_interval(share, size, t_quantile(len(sizes) - 1))
    return Estimate(value=share, low=low, high=high, caveat=caveat(groups))
