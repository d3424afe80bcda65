"""Study `dims`: embeddings projected to fewer dimensions, by PCA and by LDA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from coinml.data.records import Split
from coinml.embedding_sets.table import Samples
from coinml.studies.plans import Condition

Project = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def projected_conditions(
    parts: Mapping[Split, Samples], dims: Sequence[float]
) -> list[tuple[Condition, Mapping[Split, Samples]]]:
    """The samples in fewer dimensions, and last in all.

    PCA has at most as many components as the embedding's width and the number of training videos
    allow, LDA at most one less than the classes. Both are fitted on the standardised training
    videos alone. PCA's projection is rotated back to the embedding's own axes: heads standardise
    each column, which would scale the last component up to the size of the first.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.preprocessing import StandardScaler

    train = parts["train"]
    x = train.x.astype(np.float64)
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    width = x.shape[1]
    most_pca = min(width - 1, len(x) - 1)
    most_lda = min(len(np.unique(train.y)) - 1, width - 1)
    found = []
    kept = _capped(dims, most_pca)
    pca = PCA(n_components=max(kept), svd_solver="full").fit(scaled) if kept else None
    lda_counts = _capped(dims, most_lda)
    shrinkage = _shrinkage(scaled, train.y)
    lda = None
    if shrinkage is None:
        lda_counts = []
    else:
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage=shrinkage).fit(scaled, train.y)
    for method, machine, counts in (("PCA", pca, kept), ("LDA", lda, lda_counts)):
        for count in counts:
            project = _projection(scaler, machine, count, back=method == "PCA")
            found.append(
                (
                    Condition(name=f"{method} {count}", value=count),
                    {
                        split: replace(samples, x=project(samples.x))
                        for split, samples in parts.items()
                    },
                )
            )
    return [*found, (Condition(name="all", value=width), dict(parts))]


def _shrinkage(x: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> float | None:
    """The shrinkage of the scatter within classes; None where no class has two videos.

    With fewer videos than dimensions the scatter is singular without shrinkage. It is estimated on
    all classes together, since classes may have only two videos.

    Source: Ledoit, O. & Wolf, M. (2004). A well-conditioned estimator for large-dimensional
    covariance matrices. Journal of Multivariate Analysis 88, 365-411.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    within = x - np.stack([x[y == label].mean(axis=0) for label in y])
    if not within.any():
        return None
    return float(np.clip(ledoit_wolf_shrinkage(within, assume_centered=True), 1e-3, 1.0))


def _capped(dims: Sequence[float], most: int) -> list[int]:
    """The counts up to `most`, and `most` itself where more was asked for."""
    if most < 1:
        return []
    return sorted({min(int(count), most) for count in dims})


def _projection(scaler: Any, machine: Any, count: int, *, back: bool) -> Project:
    def project(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        projected = machine.transform(scaler.transform(x.astype(np.float64)))[:, :count]
        if back:
            projected = projected @ machine.components_[:count]
        return np.ascontiguousarray(projected, dtype=np.float32)

    return project
