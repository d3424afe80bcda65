"""The SVM head: scaled embeddings, linear or RBF kernel; kernel, C and gamma chosen on val.

The classes are those that scikit-learn's SVC predicts, and the scores are coupled from the margins
of the pairs of classes.

The chosen setting is not fitted again: the head is the machine that the search fitted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from coinml.heads.pairwise import Array, PairwiseMachine, kernel_values
from coinml.heads.search_space import SearchSpace, Trial
from coinml.heads.svm_search import KERNELS, SvmFit, check_grid, every_fit, grid_of, width_of
from coinml.runtime.cpus import cpu_count

logger = logging.getLogger(__name__)

_MEASURED_TRAINING = 2048
"""Approximate size of the subset on which training accuracy is measured."""


def train_svm(
    train: Samples,
    val: Samples,
    *,
    kernels: Sequence[str] = KERNELS,
    linear_cs: Sequence[float] = (1e-4, 1e-3, 1e-2, 0.1),
    cs: Sequence[float] = (1.0, 10.0, 100.0),
    gammas: Sequence[float] = (0.1, 0.3, 1.0, 3.0),
    seed: int = 0,
    jobs: int | None = None,
    on_fit: Callable[[FitMetrics], None] | None = None,
) -> SVMHead:
    """Fit a support vector machine, with its setting from val.

    Of settings with equal accuracy that with the lowest calibrated loss wins, then the simplest:
    linear before RBF, small C before large.

    Args:
        train: The samples that it is fitted on.
        val: The samples by which the setting is chosen.
        kernels: Any of `linear` and `rbf`.
        linear_cs: Cs to try with the linear kernel, whose values are about D times those of the
            RBF kernel.
        cs: Cs to try with the RBF kernel.
        gammas: Gammas of the RBF kernel to try, in units of 1 / D (1.0 is scikit-learn's `scale`
            on standardised data).
        seed: Not used: a support vector machine draws no random numbers.
        jobs: Number of parallel fits, by default one per core.
        on_fit: Called after each setting; an exception that it raises ends the search.

    Raises:
        InvalidInputError: An unknown kernel, a C or gamma that is not positive, or data
            that is not finite.
    """
    check_grid(kernels, linear_cs=linear_cs, cs=cs, gammas=gammas)
    if not (np.isfinite(train.x).all() and np.isfinite(val.x).all()):
        raise InvalidInputError("embeddings have values that are not finite")
    scaler = _Scaler.of(train.x)
    # Sorted by class, so that the kernel values of a pair of classes are adjacent in memory.
    order = np.argsort(train.y, kind="stable")
    train = train.take(order)
    x_train = scaler(train.x)
    settings = grid_of(kernels, linear_cs, cs, gammas)
    fits = sum(len(penalties) for _, _, penalties in settings)
    measured = np.arange(0, len(train), -(-len(train) // _MEASURED_TRAINING))
    search: list[FitMetrics] = []
    best: tuple[FitMetrics, SvmFit] | None = None
    for fit in every_fit(x_train, scaler(val.x), train.y, measured, settings, jobs or cpu_count()):
        metrics = _metrics(fit, len(search) + 1, fits, train.y, measured, val)
        search.append(metrics)
        if best is None or _rank(metrics) > _rank(best[0]):
            best = metrics, fit
        if on_fit is not None:
            on_fit(metrics)
    assert best is not None  # `check_grid` refuses an empty grid.
    logger.debug("SVM: %s", best[0])
    return SVMHead(
        best[1].machine,
        tuple(train.classes),
        scaler=scaler,
        vectors=x_train[best[1].machine.support],
        trained=np.unique(train.y),
        kernel=best[1].kernel,
        c=best[1].c,
        gamma=best[1].gamma,
        search=pd.DataFrame([asdict(metrics) for metrics in search]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FitMetrics:
    """One setting of the search and its metrics.

    Attributes:
        fit: Number of the setting, from 1.
        fits: Number of all settings.
        kernel: `linear` or `rbf`.
        c: Penalty of an error.
        gamma: Gamma of the RBF kernel in units of 1 / D; None for the linear kernel.
        train_accuracy: Accuracy on the training videos, or on an even subset of them.
        val_accuracy: Accuracy on val, by which the setting is chosen.
        val_f1_macro: Macro-F1 on val.
        val_loss: Loss on val at the best temperature, in nats, which breaks ties.
    """

    fit: int
    fits: int
    kernel: str
    c: float
    gamma: float | None
    train_accuracy: float
    val_accuracy: float
    val_f1_macro: float
    val_loss: float


class SVMHead:
    """A trained SVM: embeddings in, class probabilities out.

    Attributes:
        classes: Class names in the order of the probabilities.
        vote_temperature: For a head of an earlier version, whose scores were a softmax of the
            votes: their divisor.
        kernel: The kernel that was chosen on val; `c` and `gamma` likewise.
        search: One row per setting that was tried (columns of `FitMetrics`); empty for a
            loaded head.
    """

    takes_clips = False

    def __init__(
        self,
        machine: PairwiseMachine,
        classes: tuple[str, ...],
        *,
        scaler: _Scaler,
        vectors: Array,
        trained: npt.NDArray[np.int64],
        kernel: str,
        c: float,
        gamma: float | None,
        vote_temperature: float | None = None,
        search: pd.DataFrame | None = None,
    ) -> None:
        self._machine = machine
        self._scaler = scaler
        self._vectors = vectors
        self._trained = trained
        self.classes = classes
        self.vote_temperature = vote_temperature
        self.kernel = kernel
        self.c = c
        self.gamma = gamma
        self.search = pd.DataFrame() if search is None else search

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return len(self._scaler.mean)

    @property
    def settings(self) -> dict[str, object]:
        """What was chosen on val: kernel, C and, of the RBF kernel, gamma."""
        gamma = {} if self.gamma is None else {"gamma": self.gamma}
        return {"kernel": self.kernel, "C": self.c, **gamma}

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C), for embeddings of shape (N, D).

        Classes without training videos get 0.
        """
        proba = np.zeros((len(x), len(self.classes)), dtype=np.float32)
        if len(x):
            width = width_of(self.gamma, self.dim)
            kernel = kernel_values(self._scaler(x), self._vectors, width)
            proba[:, self._trained] = (
                self._machine.probabilities(kernel)
                if self.vote_temperature is None
                else _softmax(self._machine.decision(kernel) / self.vote_temperature)
            )
        return proba

    def save(self, path: Path) -> None:
        """Write the head into one safetensors file."""
        described = {
            "classes": list(self.classes),
            "kernel": self.kernel,
            "c": self.c,
            "gamma": self.gamma,
        }
        if self.vote_temperature is not None:
            described["temperature"] = self.vote_temperature
        arrays = {
            "mean": self._scaler.mean,
            "scale": self._scaler.scale,
            "vectors": self._vectors,
            "trained": self._trained,
            "support": self._machine.support,
            "counts": self._machine.counts,
            "dual_coef": self._machine.dual_coef,
            "intercept": self._machine.intercept,
        }
        write_head(path, HeadContent(kind="svm", description=described, arrays=arrays))

    @classmethod
    def load(cls, path: Path) -> SVMHead:
        """Read what `save` wrote.

        Raises:
            InvalidInputError: The file is not such a head.
        """
        content = read_head(path, "svm")
        arrays, described = content.arrays, content.description
        return cls(
            PairwiseMachine(
                support=arrays["support"],
                counts=arrays["counts"],
                dual_coef=arrays["dual_coef"],
                intercept=arrays["intercept"],
            ),
            tuple(described["classes"]),
            scaler=_Scaler(mean=arrays["mean"], scale=arrays["scale"]),
            vectors=arrays["vectors"],
            trained=arrays["trained"],
            vote_temperature=described.get("temperature"),
            kernel=described["kernel"],
            c=described["c"],
            gamma=described["gamma"],
        )


def count_settings(options: Mapping[str, Any]) -> int:
    """Number of settings that `train_svm` tries with these options."""
    grid = grid_of(options["kernels"], options["linear_cs"], options["cs"], options["gammas"])
    return sum(len(cs) for _, _, cs in grid)


def check_values(options: Mapping[str, Any]) -> None:
    """Check the values of all options of `train_svm`."""
    check_grid(**options)


def chosen(settings: Mapping[str, Any], _videos: int) -> dict[str, Any]:
    """The options of `train_svm` that fit one setting alone."""
    cs = "linear_cs" if settings["kernel"] == "linear" else "cs"
    gammas = {"gammas": [settings["gamma"]]} if "gamma" in settings else {}
    return {"kernels": [settings["kernel"]], cs: [settings["C"]], **gammas}


def _draw_options(trial: Trial) -> dict[str, Any]:
    if trial.suggest_categorical("kernel", ["rbf", "linear"]) == "linear":
        c = trial.suggest_float("linear_c", 1e-5, 1.0, log=True)
        return {"kernels": ["linear"], "linear_cs": [c]}
    return {
        "kernels": ["rbf"],
        "cs": [trial.suggest_float("c", 0.3, 100.0, log=True)],
        "gammas": [trial.suggest_float("gamma", 0.03, 10.0, log=True)],
    }


SEARCH_SPACE = SearchSpace(
    _draw_options, {"kernel": "rbf", "c": 10.0, "gamma": 1.0}, {"kernel": "kernels"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scaler:
    """Scales to zero mean and unit variance in float64; constant columns are only shifted."""

    mean: Array
    scale: Array

    @classmethod
    def of(cls, x: npt.NDArray[np.float32]) -> _Scaler:
        spread = x.std(axis=0, dtype=np.float64)
        return cls(mean=x.mean(axis=0, dtype=np.float64), scale=np.where(spread > 1e-8, spread, 1))

    def __call__(self, x: npt.NDArray[np.floating]) -> Array:
        return np.asarray((np.asarray(x, dtype=np.float64) - self.mean) / self.scale)


def _metrics(
    fit: SvmFit,
    number: int,
    total: int,
    y: npt.NDArray[np.int64],
    measured: npt.NDArray[np.int64],
    val: Samples,
) -> FitMetrics:
    proba = np.zeros((len(val), len(val.classes)))
    proba[:, np.unique(y)] = fit.val_proba
    answers = proba.argmax(axis=1)
    return FitMetrics(
        fit=number,
        fits=total,
        kernel=fit.kernel,
        c=fit.c,
        gamma=fit.gamma,
        train_accuracy=float((fit.train_answers == y[measured]).mean()),
        val_accuracy=float((answers == val.y).mean()),
        val_f1_macro=macro_f1(val.y, answers, len(val.classes)),
        val_loss=fit_temperature(proba, val.y)[1],
    )


def _softmax(scores: Array) -> Array:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _rank(metrics: FitMetrics) -> tuple[float, float]:
    return val_rank(metrics.val_accuracy, metrics.val_loss)
