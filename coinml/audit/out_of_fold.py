"""Class probabilities of every video by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError

FOLDS = 5
_CS = (1e-3, 1e-2, 1e-1, 1.0)
_ITERATIONS = 200


def out_of_fold(
    x: npt.NDArray[np.float32], y: npt.NDArray[np.int64], groups: Sequence[str], *, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Probabilities (N, C) by logistic regressions that were fitted on the other folds.

    Folds are stratified by class, and rows of a group are in one fold. The regularisation is the
    one with the best likelihood of the first fold.

    Args:
        x: Embeddings, float32 (N, D).
        y: Class of each row, 0 to C - 1, int64 (N,).
        groups: Group of each row: rows of a group are of one video.
        seed: Seed of the folds.

    Raises:
        InvalidInputError: There are fewer than two classes, or one of them has a single group.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    classes = int(y.max()) + 1 if len(y) else 0
    names = np.asarray(groups)
    fewest = min((len(set(names[y == one])) for one in range(classes)), default=0)
    if classes < 2 or fewest < 2:
        raise InvalidInputError(
            "an audit of labels needs two classes or more with two videos or more each; there are "
            f"{classes} classes, and the smallest has {fewest}"
        )
    folds = StratifiedGroupKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    # With few videos, the folds of some classes may still be empty: such a class gets 0 there.
    cuts = list(folds.split(x, y, names))
    first_train, first_held = cuts[0]
    likelihoods = [
        _log_likelihood(_fitted(x, y, first_train, c, classes)(x[first_held]), y[first_held])
        for c in _CS
    ]
    best = _CS[int(np.argmax(likelihoods))]
    found = np.zeros((len(y), classes))
    for train, held in cuts:
        found[held] = _fitted(x, y, train, best, classes)(x[held])
    return found


def _fitted(
    x: npt.NDArray[np.float32],
    y: npt.NDArray[np.int64],
    rows: npt.NDArray[np.intp],
    c: float,
    classes: int,
) -> Any:
    """A function from embeddings to probabilities of all classes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=_ITERATIONS))
    model.fit(x[rows], y[rows])

    def predict(some: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        proba = np.zeros((len(some), classes))
        proba[:, model.classes_] = model.predict_proba(some)
        return proba

    return predict


def _log_likelihood(proba: npt.NDArray[np.float64], y: npt.NDArray[np.int64]) -> float:
    return float(np.log(np.maximum(proba[np.arange(len(y)), y], 1e-12)).mean())
