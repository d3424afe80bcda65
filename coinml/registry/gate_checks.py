"""What a version must pass to become the champion, as functions of counts alone.

All of them take numbers or arrays of equal shape: `docs/simulate_gate.py` calls them for thousands
of simulated years at once, and the gate (`gate.judge`) for one version.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, Literal

import numpy as np

from coinml.evaluation.superiority import Answers, Rates

VAL_ALPHA = 0.025
"""Level of a first champion's test on val: one end of a 95 % interval."""

Check = Literal["val", "test", "coverage"]


def checks_of_first(
    val: Answers,
    test: Answers,
    coverage: Rates,
    *,
    level: Rates,
    coverage_floor: float,
) -> dict[Check, Any]:
    """The checks of a version where there is no champion: it must be better than chance.

    The head's settings were chosen on val, which makes val too optimistic: with labels that mean
    nothing, more than `VAL_ALPHA` pass there. Nothing was chosen on test, so that at most a share
    `level` of them passes its check.

    Args:
        val: Answers on val.
        test: Answers on test.
        coverage: Share of the official test videos that it was measured on.
        level: Significance level of this try, on test.
        coverage_floor: Least coverage.

    Returns:
        Whether each check is passed, in the order in which they are reported.
    """
    return {
        "val": val.p_value <= VAL_ALPHA,
        "test": test.p_value <= level,
        "coverage": np.asarray(coverage) >= coverage_floor,
    }


def checks_of_challenger(
    p_better: Rates,
    test_accuracy: Rates,
    champion_test_low: Rates,
    coverage: Rates,
    *,
    level: Rates,
    coverage_floor: float,
    settings_ratio: float = 1.0,
) -> dict[Check, Any]:
    """The checks of a version against the champion: val decides, and test can only object.

    The best of many settings on val is better there by luck. Where both were chosen from equally
    many, that luck is equal; a version chosen from r times as many is the best of r such versions,
    and its level is divided by r (Bonferroni).

    Args:
        p_better: One-sided p of the paired test on the common val videos.
        test_accuracy: Its test accuracy.
        champion_test_low: Lower end of the interval of the champion's test accuracy.
        coverage: Share of the official test videos that it was measured on.
        level: Significance level of this try.
        coverage_floor: Least coverage.
        settings_ratio: From how many times as many settings val chose this version as the
            champion.

    Returns:
        Whether each check is passed, in the order in which they are reported.
    """
    return {
        "val": np.asarray(p_better) <= level / max(settings_ratio, 1.0),
        "test": np.asarray(test_accuracy) >= champion_test_low,
        "coverage": np.asarray(coverage) >= coverage_floor,
    }


def passes(checks: dict[Check, Any]) -> Any:
    """Whether all checks are passed."""
    return reduce(np.logical_and, checks.values())
