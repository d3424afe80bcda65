"""Calibration of every head: one temperature, fitted on videos that the head was not fitted on.

Scores `p` become `p ** (1 / temperature)`, divided by their sum. For a softmax that is temperature
scaling. The order of the classes stays, so the predicted class does not change.

The temperature is fitted on val and, where val is small, on the training videos too, out of fold:
each fold is answered by a head that was fitted, with the same settings, without it. A few dozen val
videos are often answered without an error, and from these alone every score would become 1.

Sources: Guo, C., Pleiss, G., Sun, Y. & Weinberger, K. Q. (2017). On calibration of modern neural
networks. ICML. Platt, J. (1999). Probabilistic outputs for support vector machines (targets that
are not quite 0 and 1, so that the temperature is finite where all answers are right).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinml.data.splits import unit_hash
from coinml.heads.files import write_temperature
from coinml.heads.protocol import Head, head_input

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from coinml.embedding_sets.table import Samples

logger = logging.getLogger(__name__)

ENOUGH_VAL = 500
"""From this number of val videos on, these alone fix the temperature."""

FOLDS = 3

BOUNDS = (1 / 50, 50.0)
"""Range in which the temperature is sought."""

_WARNED_ABOUT = 50

_LEAST = float(np.finfo(np.float32).tiny)


class CalibratedHead:
    """A head whose scores have been calibrated; it answers with the same classes.

    Attributes:
        head: The head itself.
        temperature: Above 1 the scores are drawn together, below 1 apart.
    """

    def __init__(self, head: Head, temperature: float) -> None:
        self.head = head
        self.temperature = temperature

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the probabilities."""
        return self.head.classes

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return self.head.dim

    @property
    def takes_clips(self) -> bool:
        """Whether its input is the embeddings of a video's clips, not their mean."""
        return self.head.takes_clips

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was chosen on val, and the temperature."""
        return {**self.head.settings, "temperature": self.temperature}

    @property
    def search(self) -> pd.DataFrame:
        """One row per setting that was tried; empty for networks and for loaded heads."""
        return self.head.search

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C)."""
        return temper(self.head.predict_proba(x), self.temperature)

    def save(self, path: Path) -> None:
        """Write the head and its temperature into one file."""
        self.head.save(path)
        write_temperature(path, self.temperature)


def calibrate(
    head: Head,
    train: Samples,
    val: Samples,
    *,
    refit: Callable[[Samples], Head],
    seed: int = 0,
) -> CalibratedHead:
    """Fit the temperature of a head.

    Args:
        head: The fitted head.
        train: The samples that it was fitted on.
        val: The samples by which its settings were chosen.
        refit: Fits a head with the same settings on other samples.
        seed: Seed of the folds.
    """
    answers = [(head.predict_proba(head_input(head, val)), val.y)]
    if val.videos < ENOUGH_VAL:
        answers += _out_of_fold(train, refit, seed)
    proba, y = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    temperature, _ = fit_temperature(proba, y)
    if not BOUNDS[0] * 1.01 < temperature < BOUNDS[1] / 1.01:
        # With fewer videos, chance alone reaches the bound.
        logger.log(
            logging.WARNING if len(y) >= _WARNED_ABOUT else logging.INFO,
            "the temperature %.3g is at the bound of its range (%g to %g): %d of %d videos that "
            "the head was not fitted on are right, and the scores are no probabilities",
            temperature,
            *BOUNDS,
            int((proba.argmax(axis=1) == y).sum()),
            len(y),
        )
    return CalibratedHead(head, temperature)


def temper(proba: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.float32]:
    """Scores of shape (N, C) at a temperature, float32; they sum to one, and 0 stays 0."""
    if not len(proba):
        return np.asarray(proba, dtype=np.float32)
    with np.errstate(divide="ignore"):
        logits = np.log(proba.astype(np.float64)) / temperature
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), dtype=np.float32)


def fit_temperature(
    proba: npt.NDArray[np.floating], y: npt.NDArray[np.int64]
) -> tuple[float, float]:
    """The temperature of the lowest loss, and that loss in nats.

    The target of the true class is a little below 1, as if one more video had been answered at
    random: otherwise the loss of perfect answers falls without end as the temperature falls.

    Videos of classes that get no score, since training has none of them, are left out.

    Args:
        proba: Scores, shape (N, C).
        y: True classes, shape (N,).
    """
    from scipy.optimize import minimize_scalar

    known = proba.max(axis=0)[y] > 0
    if not known.any():
        return 1.0, float(-np.log(_LEAST))
    proba, y = proba[known], y[known]
    n = len(y)
    rest = 1 / (n + 1)
    logits = np.log(np.clip(proba.astype(np.float64), _LEAST, 1.0))
    logits -= logits.max(axis=1, keepdims=True)
    aimed = (1 - rest) * logits[np.arange(n), y].mean() + rest * logits.mean()

    def loss(log_t: float) -> float:
        scaled = logits * np.exp(-log_t)
        return float(np.log(np.exp(scaled).sum(axis=1)).mean() - aimed * np.exp(-log_t))

    bounds = (float(np.log(BOUNDS[0])), float(np.log(BOUNDS[1])))
    found = minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def val_rank(accuracy: float, loss: float) -> tuple[float, float]:
    """Orders settings by their accuracy on val, then by their loss at the best temperature.

    Losses count in hundredths of a nat; smaller differences are left to the order of the settings.
    """
    return accuracy, -round(loss, 2)


def _out_of_fold(
    train: Samples, refit: Callable[[Samples], Head], seed: int
) -> list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]:
    """Scores and true classes of training samples, by heads fitted without them."""
    fold = _folds(train, seed)
    answers = []
    for number in range(FOLDS):
        rest = train.take(fold != number)
        # Of a class that the other folds lack, this fold's head could know nothing.
        held = train.take((fold == number) & np.isin(train.y, rest.y))
        if len(held) and len(np.unique(rest.y)) > 1:
            head = refit(rest)
            answers.append((head.predict_proba(head_input(head, held)), held.y))
    return answers


def _folds(train: Samples, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each sample, stratified by class; the samples of a group are in one fold."""
    groups = train.clusters or train.ids
    label = dict(zip(reversed(groups), reversed(train.y.tolist()), strict=True))
    ordered = sorted(label, key=lambda group: (label[group], unit_hash(group, seed=seed)))
    fold = {group: place % FOLDS for place, group in enumerate(ordered)}
    return np.array([fold[group] for group in groups])
