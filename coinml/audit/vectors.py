"""What the embeddings alone show: outliers, near-duplicates, and videos without motion."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.embedding_sets.table import feature_columns, sample_ids
from coinml.evaluation.leaks import MIN_COSINE

_NEIGHBOURS = 10
_OUTLIER_Z = 3.5

_MAX_SHARE_OF_MEDIAN_DISTANCE = 0.1
_BLOCK = 1024


def outliers(table: pd.DataFrame) -> pd.DataFrame:
    """Videos that look like no other, the strangest first: `video_id, split, label, distance`.

    The distance is the mean cosine distance to the ten nearest videos, relative to the median of
    all videos. Its logarithm is compared with its median absolute deviation (the modified z-score).

    Source: Iglewicz, B. & Hoaglin, D. C. (1993). How to detect and handle outliers. ASQC Quality
    Press (3.5 as the limit of the modified z-score).

    Args:
        table: As `build_table` returns it.
    """
    from sklearn.neighbors import NearestNeighbors

    vectors = _centred(table)
    described: pd.DataFrame = _described(table)
    if len(vectors) <= _NEIGHBOURS:
        return described.head(0).assign(distance=np.zeros(0))
    nearest = NearestNeighbors(n_neighbors=_NEIGHBOURS, metric="cosine", algorithm="brute")
    # Without a query argument, a video is not its own neighbour.
    distance = nearest.fit(vectors).kneighbors()[0].mean(axis=1)
    logarithm = np.log(np.maximum(distance, 1e-12))
    deviation = logarithm - np.median(logarithm)
    spread = max(float(np.median(np.abs(deviation))), 1e-12)
    found: pd.DataFrame = described.assign(
        distance=distance / max(float(np.median(distance)), 1e-12)
    )
    found = found[0.6745 * deviation / spread > _OUTLIER_Z]
    return found.sort_values("distance", ascending=False, kind="stable", ignore_index=True)


def near_duplicates(table: pd.DataFrame, sha256s: Mapping[str, str]) -> pd.DataFrame:
    """Pairs of videos that are the same file or look the same, on one side of the split or on two.

    What looks the same is decided as for leaks (`evaluation.leaks`), among all videos.

    Args:
        table: As `build_table` returns it.
        sha256s: Hash of each video's file, where known.

    Returns:
        `video_id, split, label, twin_id, twin_split, twin_label, by, cosine, contradicting`, those
        with two labels first. Segments of one video are no pair.
    """
    vectors = _centred(table)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    of_video = table["video_id"].to_numpy()
    hashes = np.array([sha256s.get(one, one) for one in of_video], dtype=object)
    nearest = np.full(len(vectors), -np.inf, dtype=np.float32)
    near: list[tuple[int, int, float, bool]] = []
    for start in range(0, len(vectors), _BLOCK):
        cosines = vectors[start : start + _BLOCK] @ vectors.T
        others = of_video[start : start + _BLOCK, None] != of_video[None, :]
        cosines[~others] = -np.inf
        nearest[start : start + _BLOCK] = cosines.max(axis=1, initial=-np.inf)
        same = others & (hashes[start : start + _BLOCK, None] == hashes[None, :])
        for row, column in zip(*np.nonzero((cosines >= MIN_COSINE) | same), strict=True):
            if start + row < column:
                pair = float(cosines[row, column]), bool(same[row, column])
                near.append((int(start + row), int(column), *pair))
    finite = nearest[np.isfinite(nearest)]
    distance = 1 - float(np.median(finite)) if len(finite) else 0.0
    limit = max(MIN_COSINE, 1 - _MAX_SHARE_OF_MEDIAN_DISTANCE * distance)
    names = _described(table).to_numpy()
    found = pd.DataFrame(
        [
            (*names[first], *names[second], "file" if same_file else "embedding", cosine)
            for first, second, cosine, same_file in near
            if same_file or cosine >= limit
        ],
        columns=[
            *("video_id", "split", "label"),
            *("twin_id", "twin_split", "twin_label"),
            *("by", "cosine"),
        ],
    )
    found["contradicting"] = found["label"] != found["twin_label"]
    return found.sort_values(
        ["contradicting", "by", "cosine", "video_id"],
        ascending=[False, False, False, True],
        ignore_index=True,
    )


def clip_spread(clips: Mapping[str, npt.NDArray[np.float16]]) -> pd.Series[float]:
    """How much the clips of each video differ: their mean distance to the video's vector.

    It is relative to the median of all videos, by the video's (or segment's) id. A video whose
    pictures stay the same has a spread near 0.
    """
    spreads = {
        name: float(np.linalg.norm(part - part.mean(axis=0), axis=1).mean())
        for name, values in clips.items()
        if len(part := values.astype(np.float32)) > 1
    }
    found = pd.Series(spreads, dtype=float)
    return found / max(float(found.median()), 1e-12) if len(found) else found


def _centred(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    vectors = table[feature_columns(table)].to_numpy(dtype=np.float32)
    centred: npt.NDArray[np.float32] = vectors - vectors.mean(axis=0)
    return centred


def _described(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "video_id": sample_ids(table),
            "split": table["split"].to_numpy(),
            "label": table["label"].to_numpy(),
        }
    )
