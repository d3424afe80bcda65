"""The learning curve as a power law: error = a + b * n^-c."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError
from coinml.evaluation.clusters import members
from coinml.evaluation.intervals import Estimate

Array = npt.NDArray[np.float64]

_LEAST_SIZES = 4
_BOUNDS = ((0.0, 0.0, 0.05), (1.0, 1.0, 2.0))
"""Lower and upper bounds of a, of the height above a at the anchor, and of c."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLaw:
    """A fitted curve, see `fit_power_law`.

    Attributes:
        a: Error that remains with any amount of training data.
        b: Error above a at n = 1.
        c: Exponent by which that falls with n.
        anchor: Size at which the height above a is fitted: the geometric mean of the sizes.
        draws: Shape (draws, 3): a, height above a at the anchor, and c of each resampling.
    """

    a: Estimate
    b: Estimate
    c: Estimate
    anchor: float
    draws: Array

    def predict(self, n: float) -> Estimate:
        """The error at n training videos."""
        best = np.array([self.a.value, self.b.value * self.anchor**-self.c.value, self.c.value])
        at = np.array([n / self.anchor])
        # An error is at most 1, but the power law exceeds that for few videos.
        return _estimate(
            min(1.0, float(_curve(best, at)[0])),
            np.minimum(1.0, [_curve(draw, at)[0] for draw in self.draws]),
        )

    def as_dict(self) -> dict[str, Any]:
        """The parameters with their intervals, as plain values."""
        return {
            name: {"value": e.value, "low": e.low, "high": e.high}
            for name, e in (("a", self.a), ("b", self.b), ("c", self.c))
        }


def fit_power_law(
    sizes: Sequence[int],
    wrong: npt.NDArray[Any],
    *,
    groups: Sequence[object] | None = None,
    draws: int = 400,
    seed: int = 0,
) -> PowerLaw:
    """Fit error = a + b * n^-c to a learning curve.

    Least squares, each mean error weighted by its standard error; the intervals are percentiles
    over resampled seeds and test videos (or their groups), with a refit each. They do not measure
    how well a power law fits the data.

    Source: Hestness, J. et al. (2017). Deep learning scaling is predictable, empirically
    (errors fall as power laws of the training size).

    Args:
        sizes: Number of training videos of each point.
        wrong: Shape (points, seeds, test videos): 1 where the answer is wrong. Seeds are
            resampled with all of their points, since a seed's subsets are nested.
        groups: Each test video's group, where videos are not independent.
        draws: Number of resamplings.
        seed: Seed of the resampling.

    Raises:
        InvalidInputError: Too few sizes for three parameters, or shapes that do not fit.
    """
    wrong = np.asarray(wrong, dtype=np.float64)
    if wrong.ndim != 3 or len(sizes) != len(wrong):
        raise InvalidInputError(f"{len(sizes)} sizes with answers of shape {wrong.shape}")
    if len(set(sizes)) < _LEAST_SIZES:
        raise InvalidInputError(
            f"a power law needs {_LEAST_SIZES} training sizes or more, not {sorted(set(sizes))}"
        )
    n = np.asarray(sizes, dtype=np.float64)
    anchor = float(np.exp(np.log(n).mean()))
    _, seeds, videos = wrong.shape
    errors = wrong.mean(axis=(1, 2))
    best = _fit(n / anchor, errors, videos)
    generator = np.random.default_rng(seed)
    member = members(groups) if groups is not None else np.arange(videos)
    units = int(member.max()) + 1
    found = []
    for _ in range(draws):
        rows = generator.integers(0, seeds, seeds)
        weights = generator.multinomial(units, np.full(units, 1 / units))[member]
        errors = wrong[:, rows].mean(axis=1) @ (weights / weights.sum())
        found.append(_fit(n / anchor, errors, videos, start=best))
    drawn = np.array(found)
    return PowerLaw(
        a=_estimate(float(best[0]), drawn[:, 0]),
        b=_estimate(float(best[1] * anchor ** best[2]), drawn[:, 1] * anchor ** drawn[:, 2]),
        c=_estimate(float(best[2]), drawn[:, 2]),
        anchor=anchor,
        draws=drawn,
    )


def _fit(n: Array, errors: Array, videos: int, *, start: Array | None = None) -> Array:
    """The best parameters: a, height above a at n = 1, and c; `n` in units of the anchor."""
    from scipy.optimize import least_squares

    # Half a wrong answer is added, so that points without errors do not have infinite weight.
    spread = np.sqrt((errors * (1 - errors) + 0.5 / videos) / videos)
    starts = [np.array([errors.min() / 2, max(np.median(errors), 0.01), c]) for c in (0.3, 1.0)]
    low, high = np.array(_BOUNDS[0]), np.array(_BOUNDS[1])

    def slopes(p: Array) -> Array:
        falling = n ** -p[2]
        return (
            np.stack([np.ones_like(n), falling, -p[1] * falling * np.log(n)], axis=1)
            / spread[:, None]
        )

    fits = [
        least_squares(
            lambda p: (_curve(p, n) - errors) / spread,
            np.clip(first, low + 1e-6, high - 1e-6),
            jac=slopes,
            bounds=_BOUNDS,
            x_scale=(0.1, 0.1, 0.5),
        )
        for first in (starts if start is None else [start])
    ]
    return np.asarray(min(fits, key=lambda fit: fit.cost).x)


def _curve(parameters: Array, n: Array) -> Array:
    a, height, c = parameters
    return np.asarray(a + height * n**-c)


def _estimate(value: float, draws: Array) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    # The fit to all data may lie outside of the resamplings' percentiles.
    return Estimate(value=value, low=min(float(low), value), high=max(float(high), value))
