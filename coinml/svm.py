"""The SVM head: scaled embeddings, linear or RBF kernel, C and gamma chosen on val.

The search works on kernel matrices that are computed once (by BLAS) and shared by every
C, where libsvm alone would compute each entry anew for each fit and each pair of classes.
Only the chosen setting is then fitted on the embeddings themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from coinml.dataset import Samples
from coinml.errors import InvalidInputError
from coinml.evaluation import macro_f1

logger = logging.getLogger(__name__)

KERNELS = ("linear", "rbf")
_FORMAT = "coinml-svm-1"
_CACHE_MB = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class FitMetrics:
    """One setting of the search and how it did.

    Attributes:
        fit: From 1.
        fits: How many there are in all.
        kernel: `linear` or `rbf`.
        c: Penalty of an error.
        gamma: Width of the RBF kernel in units of 1 / D; None for the linear kernel.
        train_accuracy: On what it was fitted on.
        val_accuracy: What it is chosen by.
        val_f1_macro: What breaks ties.
    """

    fit: int
    fits: int
    kernel: str
    c: float
    gamma: float | None
    train_accuracy: float
    val_accuracy: float
    val_f1_macro: float


def train_svm(
    train: Samples,
    val: Samples,
    *,
    kernels: Sequence[str] = KERNELS,
    cs: Sequence[float] = (0.01, 0.1, 1.0, 10.0, 100.0),
    gammas: Sequence[float] = (0.1, 1.0, 10.0),
    seed: int = 0,
    on_fit: Callable[[FitMetrics], None] | None = None,
) -> SVMHead:
    """Fit a support vector machine, with its setting and its temperature from val.

    Of equally good settings the simplest wins: linear before RBF, small C before large.

    Args:
        train: What it learns from.
        val: What chooses the setting and calibrates the scores.
        kernels: Any of `linear` and `rbf`.
        cs: Penalties to try.
        gammas: RBF widths to try, in units of 1 / D (1.0 is scikit-learn's `scale` on
            standardised data).
        seed: Accepted as every head's is; a support vector machine draws no random numbers.
        on_fit: Called after each setting; what it raises ends the search.

    Raises:
        InvalidInputError: An unknown kernel, a C or gamma that is not positive, or data
            that is not finite.
    """
    _check_options(kernels, cs, gammas)
    if not (np.isfinite(train.x).all() and np.isfinite(val.x).all()):
        raise InvalidInputError("embeddings hold values that are not finite")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    scaler = StandardScaler().fit(train.x.astype(np.float64))
    search = _search(
        scaler.transform(train.x.astype(np.float64)),
        scaler.transform(val.x.astype(np.float64)),
        train,
        val,
        settings=_settings(kernels, cs, gammas),
        on_fit=on_fit,
    )
    best = max(search, key=lambda m: (m.val_accuracy, m.val_f1_macro, -m.fit))
    logger.debug("SVM: %s", best)
    pipeline = make_pipeline(
        StandardScaler(),
        SVC(
            kernel=best.kernel,
            C=best.c,
            gamma="auto" if best.gamma is None else best.gamma / train.x.shape[1],
            cache_size=_CACHE_MB,
        ),
    ).fit(train.x.astype(np.float64), train.y)
    head = SVMHead(
        pipeline,
        tuple(train.classes),
        temperature=1.0,
        kernel=best.kernel,
        c=best.c,
        gamma=best.gamma,
        search=pd.DataFrame(
            [{name: getattr(m, name) for name in FitMetrics.__dataclass_fields__} for m in search]
        ),
    )
    return head.calibrated(val)


class SVMHead:
    """A trained SVM: embeddings in, class probabilities out.

    Attributes:
        classes: Class names in the order of the probabilities.
        temperature: What the decision values are divided by before the softmax.
        kernel: The kernel that val chose; `c` and `gamma` likewise.
        search: One row a setting that was tried (columns of `FitMetrics`); empty on a
            loaded head.
    """

    def __init__(
        self,
        pipeline: Any,
        classes: tuple[str, ...],
        *,
        temperature: float,
        kernel: str,
        c: float,
        gamma: float | None,
        search: pd.DataFrame | None = None,
    ) -> None:
        self._pipeline = pipeline
        self.classes = classes
        self.temperature = temperature
        self.kernel = kernel
        self.c = c
        self.gamma = gamma
        self.search = pd.DataFrame() if search is None else search

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return int(self._pipeline.n_features_in_)

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C), for embeddings of shape (N, D).

        A class that training had no video of gets 0.
        """
        trained = self._pipeline.classes_.astype(np.int64)
        proba = np.zeros((len(x), len(self.classes)), dtype=np.float32)
        if len(x):
            proba[:, trained] = _softmax(self._decision(x) / self.temperature)
        return proba

    def calibrated(self, val: Samples) -> SVMHead:
        """The same head with the temperature under which val is likeliest.

        One number for all classes leaves the order of the scores as it is, so the answer
        does not change.

        Source: Guo et al. (2017), On calibration of modern neural networks.
        """
        from scipy.optimize import minimize_scalar

        trained = self._pipeline.classes_.astype(np.int64)
        position = np.full(len(self.classes), -1)
        position[trained] = np.arange(len(trained))
        target = position[val.y]
        decision, target = self._decision(val.x)[target >= 0], target[target >= 0]
        temperature = 1.0
        if len(target):

            def loss(log_t: float) -> float:
                proba = _softmax(decision / np.exp(log_t))
                chosen = proba[np.arange(len(target)), target]
                return float(-np.log(np.clip(chosen, 1e-12, 1.0)).mean())

            # Bounded: where val is told apart without error, the likeliest is zero.
            found = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded")
            temperature = float(np.exp(found.x))
        return SVMHead(
            self._pipeline,
            self.classes,
            temperature=temperature,
            kernel=self.kernel,
            c=self.c,
            gamma=self.gamma,
            search=self.search,
        )

    def save(self, path: Path) -> None:
        """Write the head into one skops file."""
        import skops.io

        skops.io.dump(
            {
                "format": _FORMAT,
                "pipeline": self._pipeline,
                "classes": list(self.classes),
                "temperature": self.temperature,
                "kernel": self.kernel,
                "c": self.c,
                "gamma": self.gamma,
            },
            path,
        )

    @classmethod
    def load(cls, path: Path) -> SVMHead:
        """Read what `save` wrote; nothing but scikit-learn's own types is trusted.

        Raises:
            InvalidInputError: The file is not such a head, or holds other types.
        """
        from zipfile import BadZipFile

        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        try:
            content = skops.io.load(path, trusted=[])
        except UntrustedTypesFoundException as err:
            raise InvalidInputError(f"{path}: holds types that an SVM head has not: {err}") from err
        except (BadZipFile, OSError, KeyError, ValueError) as err:
            raise InvalidInputError(f"{path}: not a readable SVM head: {err}") from err
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise InvalidInputError(f"{path}: not a {_FORMAT} head")
        return cls(
            content["pipeline"],
            tuple(content["classes"]),
            temperature=content["temperature"],
            kernel=content["kernel"],
            c=content["c"],
            gamma=content["gamma"],
        )

    def _decision(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """One value for each class that training had, shape (N, trained classes)."""
        values = np.asarray(self._pipeline.decision_function(np.asarray(x, dtype=np.float64)))
        if values.ndim == 1:
            return np.stack([-values / 2, values / 2], axis=1)
        return values


def _search(
    x_train: npt.NDArray[np.float64],
    x_val: npt.NDArray[np.float64],
    train: Samples,
    val: Samples,
    *,
    settings: Sequence[tuple[str, float | None, Sequence[float]]],
    on_fit: Callable[[FitMetrics], None] | None,
) -> list[FitMetrics]:
    from sklearn.svm import SVC

    results: list[FitMetrics] = []
    fits = sum(len(cs) for _, _, cs in settings)
    for kernel, gamma, cs in settings:
        gram_train = _gram(x_train, x_train, kernel, gamma)
        gram_val = _gram(x_val, x_train, kernel, gamma)
        for c in cs:
            machine = SVC(kernel="precomputed", C=c, cache_size=_CACHE_MB)
            machine.fit(gram_train, train.y)
            # The same reading as `SVMHead` has: the best decision value, not the votes.
            answers = [
                machine.classes_[_argmax(machine.decision_function(gram))].astype(np.int64)
                for gram in (gram_train, gram_val)
            ]
            results.append(
                FitMetrics(
                    fit=len(results) + 1,
                    fits=fits,
                    kernel=kernel,
                    c=c,
                    gamma=gamma,
                    train_accuracy=float((answers[0] == train.y).mean()),
                    val_accuracy=float((answers[1] == val.y).mean()),
                    val_f1_macro=macro_f1(val.y, answers[1], len(val.classes)),
                )
            )
            if on_fit is not None:
                on_fit(results[-1])
    return results


def _gram(
    a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], kernel: str, gamma: float | None
) -> npt.NDArray[np.float64]:
    """Kernel values of shape (len(a), len(b))."""
    product = a @ b.T
    if kernel == "linear" or gamma is None:
        return product
    squares_a, squares_b = (a * a).sum(axis=1), (b * b).sum(axis=1)
    product *= -2.0
    product += squares_a[:, None]
    product += squares_b[None, :]
    np.maximum(product, 0.0, out=product)
    product *= -gamma / a.shape[1]
    return np.asarray(np.exp(product, out=product))


def _argmax(decision: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    if decision.ndim == 1:
        return (decision > 0).astype(np.int64)
    return np.asarray(decision.argmax(axis=1))


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def _settings(
    kernels: Sequence[str], cs: Sequence[float], gammas: Sequence[float]
) -> list[tuple[str, float | None, Sequence[float]]]:
    """Kernel, gamma and the Cs that share its matrix, simplest first."""
    ordered = sorted(cs)
    settings: list[tuple[str, float | None, Sequence[float]]] = []
    if "linear" in kernels:
        settings.append(("linear", None, ordered))
    if "rbf" in kernels:
        settings.extend(("rbf", gamma, ordered) for gamma in sorted(gammas))
    return settings


def _check_options(kernels: Sequence[str], cs: Sequence[float], gammas: Sequence[float]) -> None:
    unknown = sorted(set(kernels) - set(KERNELS))
    if unknown or not kernels:
        raise InvalidInputError(f"kernels {list(kernels)}: any of {list(KERNELS)} is allowed")
    for name, values in (("cs", cs), ("gammas", gammas)):
        if not values or min(values) <= 0:
            raise InvalidInputError(f"{name} {list(values)}: positive numbers are allowed")
