"""Doubtful labels, by confident learning on out-of-fold probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.embedding_sets.table import sample_ids

LEAST_ODDS = 10.0
"""How many times more probable than its label another class must be for a suspect."""


_COLUMNS = (
    "video_id",
    "split",
    "label",
    "suggested",
    "label_probability",
    "suggested_probability",
)


def doubtful_labels(
    table: pd.DataFrame, proba: npt.NDArray[np.float64], y: npt.NDArray[np.int64]
) -> pd.DataFrame:
    """The videos whose label is probably wrong, the most doubtful first.

    cleanlab estimates how many labels are wrong (confident learning) and takes as many of the least
    probable ones. Where classes overlap, that names many videos whose labels are right; so another
    class must also be ten times as probable as the label. `benchmarks/audit.py` has precision,
    recall and false alarms of both.

    Source: Northcutt, C. G., Jiang, L. & Chuang, I. L. (2021). Confident learning: estimating
    uncertainty in dataset labels. Journal of Artificial Intelligence Research 70.

    Args:
        table: As `build_table` returns it, N rows.
        proba: Out-of-fold probabilities (N, C), with the classes sorted by name.
        y: Class of each row, int64 (N,).

    Returns:
        `video_id, split, label, suggested, label_probability, suggested_probability`; for segments
        `video_id` is the segment's id.
    """
    from cleanlab.filter import find_label_issues

    if not len(y):
        return pd.DataFrame(columns=_COLUMNS)

    classes = np.array(sorted(set(table["label"])))
    rows = np.arange(len(y))
    # Rows sum to 1 for cleanlab, also where a class was in no fold.
    shares = np.maximum(proba, 1e-9)
    shares /= shares.sum(axis=1, keepdims=True)
    of_label, best = shares[rows, y], shares.argmax(axis=1)
    doubtful = find_label_issues(y, shares, filter_by="low_self_confidence", n_jobs=1)
    doubtful &= shares[rows, best] >= LEAST_ODDS * of_label
    found: pd.DataFrame = pd.DataFrame(
        {
            "video_id": sample_ids(table),
            "split": table["split"].to_numpy(),
            "label": table["label"].to_numpy(),
            "suggested": classes[best],
            "label_probability": of_label,
            "suggested_probability": shares[rows, best],
        }
    )[doubtful]
    return found.sort_values(["label_probability", "video_id"], ignore_index=True)
