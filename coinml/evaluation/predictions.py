"""The table of a head's predictions, by which runs are compared."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.data.records import Split
from coinml.embedding_sets.table import Samples


def predictions_table(
    split: Split,
    samples: Samples,
    proba: npt.NDArray[np.floating],
    classes: Sequence[str],
) -> pd.DataFrame:
    """A head's predictions on some samples.

    Args:
        split: The samples' split.
        samples: Samples the probabilities belong to.
        proba: Scores of shape (N, C).
        classes: The C class names.

    Returns:
        `video_id, split, label, predicted, score`. For segments `video_id` is the segment's id,
        by which two runs are compared, and `of_video` is the id of its video. `group` is what a
        video shares with others, where the dataset has groups.
    """
    found = {"of_video": samples.groups, "group": samples.shared}
    return pd.DataFrame(
        {
            "video_id": samples.ids,
            "split": split,
            "label": [samples.classes[y] for y in samples.y],
            "predicted": [classes[index] for index in proba.argmax(axis=1)],
            "score": proba.max(axis=1),
            **{name: values for name, values in found.items() if values},
        }
    )


def independent_rows(predictions: pd.DataFrame) -> pd.DataFrame:
    """One random row of each group, or of each video with several segments; else all rows."""
    for column in ("group", "of_video"):
        if column in predictions:
            # Rows that share something are no independent evidence.
            return predictions.sample(frac=1, random_state=0).drop_duplicates(column)
    return predictions
