"""What new videos are compared with: a sample of the vectors that a version was trained on.

A training logs the sample to its run, and the run's predictions for val and test are the reference
for classes and scores: those of training videos are more certain, since the head was fitted on
them. The encoder is not fitted on any, so vectors of all splits are a reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from coinml.data.records import Split
from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.evaluation.predictions import independent_rows
from coinml.monitoring.drift import Predicted
from coinml.tracking.mlflow_store import MlflowStore

REFERENCE = "reference"
"""Name of the table of vectors in a training's run."""

MOST_VIDEOS = 500
"""Vectors of length 768 take 0.8 MB then."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """What new videos are compared with.

    Attributes:
        predicted: Vectors and answers of videos of the training's dataset.
        note: What cannot be compared and why; "" if everything can.
    """

    predicted: Predicted
    note: str = ""


def reference_table(samples: Mapping[Split, Samples]) -> pd.DataFrame:
    """A random sample of the vectors: `video_id, split, embedding` (float16), at most 500 rows.

    Of rows that are not independent (segments of a video, videos of a group) there is one.

    Args:
        samples: The samples by split.
    """
    rows = pd.DataFrame(
        [
            (video_id, split, vector.astype(np.float16), cluster)
            for split, part in samples.items()
            for video_id, vector, cluster in zip(
                part.ids, part.x, part.clusters or part.ids, strict=True
            )
        ],
        columns=["video_id", "split", "embedding", "cluster"],
    )
    drawn = rows.sample(frac=1, random_state=0).drop_duplicates("cluster").head(MOST_VIDEOS)
    return drawn.drop(columns="cluster").sort_index()


def read_reference(store: MlflowStore, run_id: str) -> Reference:
    """The reference of a version by its run.

    Raises:
        InvalidInputError: The run has no predictions.
        TransientError: MLflow does not answer.
    """
    answers = store.read_table(run_id, "predictions")
    answers = independent_rows(answers[answers["split"] != "train"])
    try:
        vectors = np.stack(list(store.read_table(run_id, REFERENCE)["embedding"]))
        note = ""
    except InvalidInputError:
        vectors = None
        note = (
            "embeddings are not compared: this version was registered by an earlier coinml, which "
            "kept no vectors; the next training does"
        )
    return Reference(
        predicted=Predicted(
            embeddings=vectors,
            labels=tuple(answers["predicted"]),
            scores=answers["score"].to_numpy(dtype=float),
        ),
        note=note,
    )
