"""Whether a window of scored videos differs from the videos that a model was trained on.

A window is tested once, by three tests: its embeddings (energy distance), the mix of predicted
classes (chi-square) and the scores (Kolmogorov-Smirnov). Holm's procedure corrects for the three.
Windows are disjoint, and of `looks` windows each is tested at the level 5 % / `looks`, so that the
probability of any false alarm among them is 5 % at most, whatever the windows have in common
(Bonferroni). `benchmarks/drift.py` simulates false alarms and power.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinml.monitoring.two_sample import (
    TestResult,
    confidence_test,
    energy_test,
    holm,
    mix_test,
)

ALPHA = 0.05
"""Probability of a false alarm among `looks` windows, at most."""

EMBEDDINGS, CLASS_MIX, CONFIDENCE = "embeddings", "class_mix", "confidence"

_FEWEST_PERMUTATIONS = 1999
_PERMUTATIONS_PER_ALARM = 20
"""Permutations as extreme as the window are expected at the level, for a stable verdict."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """Vectors and answers of some videos.

    Attributes:
        embeddings: Shape (N, D); None where they are not known.
        labels: Predicted class of each of M videos.
        scores: Score of these classes, shape (M,).
    """

    embeddings: npt.NDArray[np.floating] | None
    labels: tuple[str, ...]
    scores: npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The tests of a window.

    Attributes:
        level: The window is said to differ if an adjusted p-value is this or less.
        tests: Statistic and p-value of each test, without adjustment.
        adjusted: Each p-value adjusted for the number of tests.
    """

    level: float
    tests: Mapping[str, TestResult]
    adjusted: Mapping[str, float]

    @property
    def found(self) -> tuple[str, ...]:
        """The tests by which the window differs, the clearest first."""
        ordered = sorted(self.adjusted.items(), key=lambda item: item[1])
        return tuple(name for name, p_value in ordered if p_value <= self.level)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "level": self.level,
            "tests": {
                name: {**asdict(one), "adjusted_p_value": self.adjusted[name]}
                for name, one in self.tests.items()
            },
            "drift": list(self.found),
        }


def find_drift(
    reference: Predicted,
    window: Predicted,
    *,
    looks: int = 1,
    seed: int = 0,
    permutations: int | None = None,
) -> Drift:
    """Compare a window with the reference.

    Args:
        reference: Videos of the training's dataset; the answers are those on val and test.
        window: New videos. Where one of the two has no embeddings, these are not compared.
        looks: Number of windows among which a false alarm has the probability `ALPHA`.
        seed: Seed of the permutations.
        permutations: Their number; None: enough for a stable verdict at the level.
    """
    level = ALPHA / looks
    if permutations is None:
        permutations = max(_FEWEST_PERMUTATIONS, round(_PERMUTATIONS_PER_ALARM / level) - 1)
    tests = {}
    if reference.embeddings is not None and window.embeddings is not None:
        tests[EMBEDDINGS] = energy_test(
            reference.embeddings, window.embeddings, permutations=permutations, seed=seed
        )
    tests[CLASS_MIX] = mix_test(
        reference.labels, window.labels, permutations=permutations, seed=seed
    )
    tests[CONFIDENCE] = confidence_test(reference.scores, window.scores)
    adjusted = holm([one.p_value for one in tests.values()])
    return Drift(level=level, tests=tests, adjusted=dict(zip(tests, adjusted, strict=True)))
