"""A head that coinml does not have; `tests/unit/heads/test_new_head.py` adds it to a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.embedding_sets.table import Samples
from coinml.heads.files import HeadContent, read_head, write_head
from coinml.heads.search_space import SearchSpace


def train_nearest_mean(
    train: Samples,
    val: Samples,
    *,
    scales: Sequence[float] = (1.0, 10.0),
    seed: int = 0,
    on_fit: Callable[[], None] | None = None,
) -> NearestMeanHead:
    """Remember each class's mean, and choose on val the scale of the distances."""
    trained = np.unique(train.y)
    means = np.full((len(train.classes), train.x.shape[1]), np.inf, dtype=np.float32)
    means[trained] = [train.x[train.y == one].mean(axis=0) for one in trained]
    rows = []
    for scale in scales:
        proba = NearestMeanHead(means, train.classes, scale).predict_proba(val.x)
        right = np.clip(proba[np.arange(len(val)), val.y], 1e-12, 1)
        rows.append({"scale": scale, "val_loss": float(-np.log(right).mean())})
        if on_fit is not None:
            on_fit()
    best = min(rows, key=lambda row: row["val_loss"])
    return NearestMeanHead(means, train.classes, best["scale"], pd.DataFrame(rows))


class NearestMeanHead:
    """The nearer a class's mean, the likelier the class."""

    takes_clips = False

    def __init__(
        self,
        means: npt.NDArray[np.float32],
        classes: Sequence[str],
        scale: float,
        search: pd.DataFrame | None = None,
    ) -> None:
        self.means, self.classes, self.scale = means, tuple(classes), scale
        self.search = pd.DataFrame() if search is None else search

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.means.shape[1]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The scale that val chose."""
        return {"scale": self.scale}

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Softmax of the negative distances."""
        distances = np.linalg.norm(x[:, None, :] - self.means[None], axis=2) / self.scale
        shifted = np.exp(distances.min(axis=1, keepdims=True) - distances)
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float32)

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        described = {"classes": list(self.classes), "scale": self.scale}
        arrays = {"means": self.means}
        write_head(path, HeadContent(kind="nearest_mean", description=described, arrays=arrays))

    @classmethod
    def load(cls, path: Path) -> NearestMeanHead:
        """Read what `save` wrote."""
        content = read_head(path, "nearest_mean")
        described = content.description
        return cls(content.arrays["means"], described["classes"], described["scale"])


def count_settings(options: Mapping[str, Any]) -> int:
    """Number of scales to try."""
    return len(options["scales"])


SEARCH_SPACE = SearchSpace(
    lambda trial: {"scales": [trial.suggest_float("scale", 0.1, 100.0, log=True)]}, {"scale": 1.0}
)
