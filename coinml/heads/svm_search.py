"""The grid search of the SVM: one fit for each kernel, gamma and C.

Each kernel matrix is computed once (by BLAS) and shared by all Cs; libsvm alone would compute its
entries again for each fit and each pair of classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError
from coinml.heads.pairwise import Array, PairwiseMachine, kernel_of_products, solve

KERNELS = ("linear", "rbf")

Setting = tuple[str, float | None, Sequence[float]]
"""Kernel, gamma, and the Cs that share the kernel matrix."""


def every_fit(
    x_train: Array,
    x_val: Array,
    y: npt.NDArray[np.int64],
    measured: npt.NDArray[np.int64],
    settings: Sequence[Setting],
    jobs: int,
) -> Iterator[SvmFit]:
    """The fit of every setting, in order; `jobs` Cs are fitted in parallel.

    Threads suffice, since libsvm releases the GIL; fits of one kernel share its matrix.

    Args:
        x_train: Scaled embeddings (N, D), sorted by class.
        x_val: Scaled embeddings (M, D).
        y: Classes (N,).
        measured: The training rows on which training accuracy is measured.
        settings: From `grid_of`.
        jobs: Number of parallel fits.
    """
    squares = [(x * x).sum(axis=1) for x in (x_train, x_val)]
    products = [x @ x_train.T for x in (x_train, x_val)]
    with ThreadPoolExecutor(jobs, thread_name_prefix="svm") as pool:
        for kernel, gamma, cs in settings:
            width = width_of(gamma, x_train.shape[1])
            grams = [
                kernel_of_products(product, own, squares[0], width)
                for product, own in zip(products, squares, strict=True)
            ]
            free: SvmFit | None = None
            for start in range(0, len(cs), jobs):
                together = cs[start : start + jobs]
                if free is not None:
                    yield from (replace(free, c=c) for c in together)
                    continue
                tasks = [pool.submit(_fit, grams, y, measured, kernel, gamma, c) for c in together]
                for task in tasks:
                    fit = task.result()
                    free = fit if free is None and fit.is_free else free
                    yield fit


@dataclass(frozen=True, slots=True, kw_only=True)
class SvmFit:
    """The machine fitted with one setting, and its predictions.

    Attributes:
        kernel: `linear` or `rbf`.
        gamma: Width of the RBF kernel in units of 1 / D.
        c: Penalty of an error.
        machine: The fitted machine.
        train_answers: Predicted classes of the measured training rows.
        val_proba: Scores of the validation rows for the classes that occur in training.
    """

    kernel: str
    gamma: float | None
    c: float
    machine: PairwiseMachine
    train_answers: npt.NDArray[np.int64]
    val_proba: Array

    @property
    def is_free(self) -> bool:
        """Whether no dual coefficient is at the bound C, so that a larger C changes nothing."""
        return bool(np.abs(self.machine.dual_coef).max() < self.c * (1 - 1e-9))


def grid_of(
    kernels: Sequence[str],
    linear_cs: Sequence[float],
    cs: Sequence[float],
    gammas: Sequence[float],
) -> list[Setting]:
    """The settings of a grid, simplest first."""
    settings: list[Setting] = []
    if "linear" in kernels:
        settings.append(("linear", None, sorted(linear_cs)))
    if "rbf" in kernels:
        settings.extend(("rbf", gamma, sorted(cs)) for gamma in sorted(gammas))
    return settings


def check_grid(kernels: Sequence[str], **values: Sequence[float]) -> None:
    """Check the values of a grid.

    Raises:
        InvalidInputError: A kernel is unknown, or a value is not positive.
    """
    unknown = sorted(set(kernels) - set(KERNELS))
    if unknown or not kernels:
        raise InvalidInputError(f"kernels {list(kernels)}: any of {list(KERNELS)} is allowed")
    for name, given in values.items():
        if not given or min(given) <= 0:
            raise InvalidInputError(f"{name} {list(given)}: positive numbers are allowed")


def width_of(gamma: float | None, dim: int) -> float | None:
    """The RBF kernel's gamma itself; None for the linear one."""
    return None if gamma is None else gamma / dim


def _fit(
    grams: Sequence[Array],
    y: npt.NDArray[np.int64],
    measured: npt.NDArray[np.int64],
    kernel: str,
    gamma: float | None,
    c: float,
) -> SvmFit:
    machine = solve(grams[0], y, c)
    answers = machine.decision(grams[0][measured], machine.support).argmax(axis=1)
    return SvmFit(
        kernel=kernel,
        gamma=gamma,
        c=c,
        machine=machine,
        train_answers=np.unique(y)[answers],
        val_proba=machine.probabilities(grams[1], machine.support),
    )
