"""Two-dimensional projections of embeddings, and nearest neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError

PROJECTIONS = ("pca", "lda", "tsne")

NAMES = {"pca": "PCA", "lda": "LDA", "tsne": "t-SNE"}

_TSNE_INPUT_DIMS = 50
_NEIGHBOURS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingMap:
    """Coordinates and neighbours of each video.

    Attributes:
        places: float32 (N, 2), by name of the projection.
        neighbours: int64 (N, k): indices of the nearest rows, the nearest first.
        left_out: Projections that cannot be computed from these data, and why.
    """

    places: dict[str, npt.NDArray[np.float32]]
    neighbours: npt.NDArray[np.int64]
    left_out: dict[str, str]


def check_projections(names: Sequence[str]) -> None:
    """Require that projections are known.

    Raises:
        InvalidInputError: One is not.
    """
    if unknown := sorted(set(names) - set(PROJECTIONS)):
        raise InvalidInputError(
            f"projection {', '.join(unknown)}: {', '.join(PROJECTIONS)} are allowed"
        )


def embedding_map(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    train: npt.NDArray[np.bool_],
    *,
    projections: Sequence[str] = PROJECTIONS,
    seed: int = 0,
) -> EmbeddingMap:
    """Project embeddings to two dimensions.

    Args:
        x: float32 (N, D), one row per video.
        y: int64 (N,): class indices.
        train: bool (N,): the rows that LDA is fitted on. LDA uses their labels, so training
            videos always look well separated; only the other rows are informative.
        projections: Some of `pca`, `lda` and `tsne`.
        seed: Seed of t-SNE.

    Raises:
        InvalidInputError: An unknown projection, or fewer than three videos.
    """
    check_projections(projections)
    if len(x) < 3:
        raise InvalidInputError(f"a map needs three videos or more, and has {len(x)}")
    from sklearn.neighbors import NearestNeighbors

    # Without centring, the component that all embeddings share dominates the cosine.
    centred = x - x.mean(axis=0)
    places: dict[str, npt.NDArray[np.float32]] = {}
    left_out: dict[str, str] = {}
    for name in projections:
        if name == "pca":
            places[name] = _pca(centred, 2)
        elif name == "lda":
            classes = len(set(y[train].tolist()))
            if classes < 3 or int(train.sum()) <= classes:
                left_out[name] = f"needs three classes with training videos, has {classes}"
            else:
                places[name] = _lda(centred, y, train)
        else:
            places[name] = _tsne(centred, seed)
    found = NearestNeighbors(metric="cosine", algorithm="brute").fit(centred)
    # Without a query argument, a video is not its own neighbour.
    rows = found.kneighbors(n_neighbors=min(_NEIGHBOURS, len(x) - 1), return_distance=False)
    return EmbeddingMap(places=places, neighbours=rows, left_out=left_out)


def _pca(x: npt.NDArray[np.float32], dims: int) -> npt.NDArray[np.float32]:
    from sklearn.decomposition import PCA

    return np.asarray(
        PCA(min(dims, *x.shape), svd_solver="full", random_state=0).fit_transform(x),
        dtype=np.float32,
    )


def _lda(
    x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], train: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    # Shrinkage, because unregularised LDA overfits with more dimensions than videos.
    model = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=2)
    return np.asarray(model.fit(x[train], y[train]).transform(x), dtype=np.float32)


def _tsne(x: npt.NDArray[np.float32], seed: int) -> npt.NDArray[np.float32]:
    from sklearn.manifold import TSNE

    reduced = _pca(x, _TSNE_INPUT_DIMS)
    perplexity = min(30.0, (len(x) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(model.fit_transform(reduced), dtype=np.float32)
