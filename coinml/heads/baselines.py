"""The baselines: logistic regression and k nearest neighbours, by scikit-learn.

Both classify standardised embeddings. A larger head is useful if it beats them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import macro_f1
from coinml.heads.files import HeadContent, read_head, write_head
from coinml.heads.search_space import SearchSpace

_ITERATIONS = 200


def train_logreg(
    train: Samples,
    val: Samples,
    *,
    cs: Sequence[float] = (1e-4, 1e-3, 1e-2, 0.1, 1.0),
    seed: int = 0,
    on_fit: Callable[[], None] | None = None,
) -> BaselineHead:
    """Fit a multinomial logistic regression, with its C from val.

    Args:
        train: The samples that it is fitted on.
        val: The samples by which C is chosen; of equally good ones the smallest.
        cs: Inverse regularisation strengths to try.
        seed: Not used: the optimum is unique, and no random numbers are drawn.
        on_fit: Called after each C; an exception that it raises ends the search.

    Raises:
        InvalidInputError: A C that is not positive, or data that is not finite.
    """
    from sklearn.linear_model import LogisticRegression

    if not cs or min(cs) <= 0:
        raise InvalidInputError(f"cs {list(cs)}: positive numbers are allowed")

    def model(c: float) -> Any:
        return LogisticRegression(C=c, max_iter=_ITERATIONS)

    return _search("logreg", "C", sorted(cs), model, train, val, on_fit)


def train_knn(
    train: Samples,
    val: Samples,
    *,
    ks: Sequence[int] = (1, 3, 5, 10, 20, 50),
    seed: int = 0,
    on_fit: Callable[[], None] | None = None,
) -> BaselineHead:
    """Fit a k-nearest-neighbours classifier by cosine distance, with its k from val.

    Args:
        train: The samples that are the neighbours.
        val: The samples by which k is chosen; of equally good ones the smallest.
        ks: Numbers of neighbours to try; those above the number of videos are left out.
        seed: Not used: no random numbers are drawn.
        on_fit: Called after each k; an exception that it raises ends the search.

    Raises:
        InvalidInputError: No k is from 1 to the number of videos, or data is not finite.
    """
    from sklearn.neighbors import KNeighborsClassifier

    possible = sorted(k for k in ks if k <= len(train))
    if not possible or possible[0] < 1:
        raise InvalidInputError(f"ks {list(ks)}: from 1 to {len(train)} training videos is allowed")

    def model(k: float) -> Any:
        return KNeighborsClassifier(int(k), metric="cosine", weights="distance", algorithm="brute")

    return _search("knn", "k", possible, model, train, val, on_fit)


class BaselineHead:
    """A trained baseline: embeddings in, class probabilities out.

    Attributes:
        classes: Class names in the order of the probabilities.
        kind: "logreg" or "knn".
        settings: What was chosen on val, by name: `C` or `k`.
        search: One row per setting that was tried; empty for a loaded head.
    """

    takes_clips = False

    def __init__(
        self,
        kind: str,
        pipeline: Any,
        classes: tuple[str, ...],
        *,
        settings: Mapping[str, float],
        search: pd.DataFrame | None = None,
    ) -> None:
        self.kind = kind
        self._pipeline = pipeline
        self.classes = classes
        self.settings = settings
        self.search = pd.DataFrame() if search is None else search

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return int(self._pipeline.n_features_in_)

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C), for embeddings of shape (N, D).

        Classes without training videos get 0.
        """
        proba = np.zeros((len(x), len(self.classes)), dtype=np.float32)
        if len(x):
            trained = self._pipeline.classes_.astype(np.int64)
            proba[:, trained] = self._pipeline.predict_proba(np.asarray(x, dtype=np.float32))
        return proba

    def save(self, path: Path) -> None:
        """Write the head into one skops file."""
        described = {"classes": list(self.classes), "setting": dict(self.settings)}
        write_head(
            path,
            HeadContent(kind=self.kind, description=described, arrays={}, fitted=self._pipeline),
        )

    @classmethod
    def load(cls, path: Path) -> BaselineHead:
        """Read what `save` wrote; types other than scikit-learn's own are refused.

        Raises:
            InvalidInputError: The file is not such a head, or holds other types.
        """
        content = read_head(path, "logreg", "knn")
        described = content.description
        return cls(
            content.kind,
            content.fitted,
            tuple(described["classes"]),
            settings=described["setting"],
        )


def count_settings(options: Mapping[str, Any]) -> int:
    """Number of settings that a baseline's trainer tries with these options, at most."""
    return len(options["ks"] if "ks" in options else options["cs"])


LOGREG_SEARCH_SPACE = SearchSpace(
    lambda trial: {"cs": [trial.suggest_float("c", 1e-5, 10.0, log=True)]}, {"c": 1e-2}
)
KNN_SEARCH_SPACE = SearchSpace(
    lambda trial: {"ks": [trial.suggest_int("k", 1, 60, log=True)]}, {"k": 5}
)


def _search(
    kind: str,
    name: str,
    values: Sequence[float],
    model: Callable[[float], Any],
    train: Samples,
    val: Samples,
    on_fit: Callable[[], None] | None,
) -> BaselineHead:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not (np.isfinite(train.x).all() and np.isfinite(val.x).all()):
        raise InvalidInputError("embeddings have values that are not finite")
    best: tuple[tuple[float, float], BaselineHead] | None = None
    rows = []
    for value in values:
        pipeline = make_pipeline(StandardScaler(), model(value)).fit(train.x, train.y)
        head = BaselineHead(kind, pipeline, tuple(train.classes), settings={name: value})
        answers = [head.predict_proba(side.x).argmax(axis=1) for side in (train, val)]
        score = (
            float((answers[1] == val.y).mean()),
            macro_f1(val.y, answers[1], len(val.classes)),
        )
        rows.append(
            {
                name: value,
                "train_accuracy": float((answers[0] == train.y).mean()),
                "val_accuracy": score[0],
                "val_f1_macro": score[1],
            }
        )
        if best is None or score > best[0]:
            best = score, head
        if on_fit is not None:
            on_fit()
    assert best is not None  # The callers check that `values` is not empty.
    best[1].search = pd.DataFrame(rows)
    return best[1]
