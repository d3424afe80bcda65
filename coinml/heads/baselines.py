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
from coinml.heads.calibration import fit_temperature, val_rank
from coinml.heads.files import HeadContent, read_head, write_head
from coinml.heads.pairwise import with_winners
from coinml.heads.search_space import SearchSpace

_ITERATIONS = 200

_SCORED, _DECAY, _FLOOR = 100, 10.0, 5.0
"""A score counts this many neighbours of a video or more. With the distance of the last of them as
the unit, their weights are exp(-`_DECAY` * distance beyond the nearest). Every class gets `_FLOOR`
times the smallest weight."""


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
        val: The samples by which C is chosen; of Cs with equal accuracy that with the lowest
            calibrated loss, then the smallest.
        cs: Inverse regularisation strengths to try.
        seed: Not used: the optimum is unique, and no random numbers are drawn.
        on_fit: Called after each C; an exception that it raises ends the search.

    Raises:
        InvalidInputError: A C that is not positive, or data that is not finite.
    """
    from sklearn.linear_model import LogisticRegression

    check_values({"cs": cs})

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
        val: The samples by which k is chosen; of ks with equal accuracy that with the lowest
            calibrated loss, then the smallest.
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
            scores = _neighbour_scores if self.kind == "knn" else _model_scores
            proba[:, trained] = scores(self._pipeline, np.asarray(x, dtype=np.float32))
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


def check_values(options: Mapping[str, Any]) -> None:
    """Check the values of all options of a baseline's trainer, as far as data is not needed."""
    for name, values in options.items():
        if not values or min(values) <= 0:
            raise InvalidInputError(f"{name} {list(values)}: positive numbers are allowed")


def chosen(settings: Mapping[str, Any], videos: int) -> dict[str, Any]:
    """The options of a baseline's trainer that fit one setting alone on so many videos."""
    return {"ks": [min(settings["k"], videos)]} if "k" in settings else {"cs": [settings["C"]]}


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
        proba = head.predict_proba(val.x)
        answers = proba.argmax(axis=1)
        accuracy = float((answers == val.y).mean())
        loss = fit_temperature(proba, val.y)[1]
        rows.append(
            {
                name: value,
                "train_accuracy": float((pipeline.predict(train.x) == train.y).mean()),
                "val_accuracy": accuracy,
                "val_f1_macro": macro_f1(val.y, answers, len(val.classes)),
                "val_loss": loss,
            }
        )
        if best is None or val_rank(accuracy, loss) > best[0]:
            best = val_rank(accuracy, loss), head
        if on_fit is not None:
            on_fit()
    assert best is not None  # The callers check that `values` is not empty.
    best[1].search = pd.DataFrame(rows)
    return best[1]


def _model_scores(pipeline: Any, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.asarray(pipeline.predict_proba(x))


def _neighbour_scores(pipeline: Any, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Scores (N, classes with training videos) of a k-nearest-neighbours pipeline.

    The class is the one that scikit-learn predicts: the k nearest vote with the inverse of their
    distance. These votes alone would be 1 for most videos, and with k = 1 for all, so the scores
    count more neighbours, with weights that fall with their distance, and every class has some. The
    class that wins the votes has the largest score.
    """
    model = pipeline[-1]
    k, videos = model.n_neighbors, model.n_samples_fit_
    counted = min(max(_SCORED, 5 * k), videos)
    distance, found = model.kneighbors(pipeline[:-1].transform(x), n_neighbors=counted)
    # The training classes that the fitted model holds, as indices of `classes_`.
    classes = model._y[found]
    rows = np.arange(len(x))[:, None]
    with np.errstate(divide="ignore"):
        votes = 1.0 / distance[:, :k]
    same = np.isinf(votes)
    votes = np.where(same.any(axis=1, keepdims=True), same, votes)
    shape = (len(x), len(model.classes_))
    won, scores = np.zeros(shape), np.zeros(shape)
    np.add.at(won, (rows, classes[:, :k]), votes)
    # The unit is a distance from the video, not one beyond the nearest: in such units a video far
    # from all classes would look as clear as one that is near to its own.
    unit = distance[:, -1:]
    weights = np.exp(-_DECAY * (distance - distance[:, :1]) / np.where(unit > 0, unit, 1.0))
    np.add.at(scores, (rows, classes), weights)
    scores += _FLOOR * weights[:, -1:]
    return with_winners(scores / scores.sum(axis=1, keepdims=True), won.argmax(axis=1))
