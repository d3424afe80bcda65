"""Which videos are near a vector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Metric = Literal["cosine", "l2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """One video near a query.

    Attributes:
        video_id: Its id.
        score: Cosine similarity (1 is the same direction), or Euclidean distance (0 is the same
            vector).
    """

    video_id: str
    score: float


def nearest(
    matrix: NDArray[np.float32],
    ids: Sequence[str],
    query: NDArray[np.float32],
    *,
    k: int = 10,
    metric: str = "cosine",
    centre: bool = True,
) -> list[Neighbour]:
    """Find the videos nearest to a query, by comparing it with all of them.

    Args:
        matrix: float32 (N, D), one row a video.
        ids: Their ids.
        query: float32 (D,).
        k: Number of neighbours; fewer come where there are fewer videos.
        metric: `cosine` or `l2`.
        centre: Subtract the mean of all videos first, for `cosine`. What a network's vectors
            have in common otherwise makes them all look alike.

    Returns:
        The nearest first; of equally near ones the smaller id.

    Raises:
        InvalidInputError: Shapes that do not fit, or an unknown metric.
    """
    if metric not in get_args(Metric):
        raise InvalidInputError(f"metric {metric!r} is unknown; known: {get_args(Metric)}")
    if matrix.ndim != 2 or len(ids) != len(matrix) or query.shape != matrix.shape[1:]:
        raise InvalidInputError(
            f"{len(ids)} ids, vectors of shape {matrix.shape} and a query of {query.shape} "
            "do not fit"
        )
    if k < 1:
        raise InvalidInputError(f"k must be at least 1, not {k}")
    if not len(ids):
        return []
    if metric == "l2":
        scores = np.linalg.norm(matrix - query, axis=1)
    else:
        origin = matrix.mean(axis=0) if centre else np.zeros_like(query)
        scores = _unit(matrix - origin) @ _unit(query - origin)
    order = np.lexsort((np.asarray(ids), scores if metric == "l2" else -scores))
    return [Neighbour(video_id=ids[int(place)], score=float(scores[place])) for place in order[:k]]


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = vectors / np.maximum(lengths, 1e-12)
    return scaled
