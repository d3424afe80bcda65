"""Two-sample tests: their values, false alarms and power."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import PermutationMethod, chi2_contingency, ks_2samp

from coinml.monitoring.drift import Predicted, find_drift
from coinml.monitoring.two_sample import confidence_test, energy_test, holm, mix_test


def test_the_energy_distance_is_that_of_dcor() -> None:
    generator = np.random.default_rng(7)
    x, y = generator.normal(size=(40, 16)), generator.normal(size=(25, 16))
    # By dcor 0.7 (`energy_distance`, and `homogeneity.energy_test` with 20,000 resamples), which
    # needs numba and is not installed with the tests.
    for window, distance, p_value in (
        (y, 0.47477661185538444, 0.0240),
        (y + 0.25, 0.8319608798480207, 0.00005),
    ):
        found = energy_test(x, window, permutations=4999)
        assert found.statistic == pytest.approx(distance, rel=1e-12)
        assert found.p_value == pytest.approx(p_value, abs=0.008)


def test_the_mix_test_is_that_of_scipy() -> None:
    generator = np.random.default_rng(1)
    reference = generator.choice(list("abcd"), 60, p=[0.4, 0.3, 0.25, 0.05])
    window = generator.choice(list("abce"), 25, p=[0.2, 0.3, 0.4, 0.1])
    table = np.array([[(one == name).sum() for name in "abcde"] for one in (reference, window)])
    method = PermutationMethod(n_resamples=4999, rng=np.random.default_rng(0))
    expected = chi2_contingency(table, correction=False, method=method)
    found = mix_test(list(reference), list(window), permutations=4999)
    assert found.statistic == pytest.approx(expected.statistic)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.02)


def test_one_class_alone_is_no_drift() -> None:
    assert mix_test(["a"] * 30, ["a"] * 20).p_value == 1.0


def test_the_confidence_test_is_scipys() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.random(50), generator.random(40) ** 2
    expected = ks_2samp(a, b)
    found = confidence_test(a, b)
    assert (found.statistic, found.p_value) == (expected.statistic, expected.pvalue)


def test_holm_adjusts_as_published() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.5]) == [1.0, 1.0]


def predicted(generator: np.random.Generator, n: int, *, shift: float = 0.0) -> Predicted:
    x = generator.normal(size=(n, 12)) + shift
    return Predicted(
        embeddings=x,
        labels=tuple("abc"[index] for index in x[:, :3].argmax(axis=1)),
        scores=1 / (1 + np.exp(-x.max(axis=1))),
    )


def test_windows_without_drift_are_rarely_called_different() -> None:
    generator = np.random.default_rng(3)
    draws = [
        find_drift(predicted(generator, 80), predicted(generator, 30), seed=seed)
        for seed in range(100)
    ]
    alarms = sum(bool(one.found) for one in draws)
    # At 5 %, more than 10 of 100 have a probability of 1 %.
    assert alarms <= 10
    for name in ("embeddings", "class_mix", "confidence"):
        assert sum(one.tests[name].p_value <= 0.05 for one in draws) <= 12


def test_a_shift_is_found_at_the_level_of_fifty_windows() -> None:
    generator = np.random.default_rng(4)
    reference, window = predicted(generator, 80), predicted(generator, 30, shift=0.6)
    drift = find_drift(reference, window, looks=50)
    assert drift.level == 0.001
    assert "embeddings" in drift.found
    assert drift.as_dict()["tests"]["embeddings"]["adjusted_p_value"] <= 0.001
    assert find_drift(reference, window, looks=50).as_dict() == drift.as_dict()


def test_without_vectors_the_answers_are_compared() -> None:
    generator = np.random.default_rng(5)
    reference, window = predicted(generator, 40), predicted(generator, 30)
    without = Predicted(embeddings=None, labels=reference.labels, scores=reference.scores)
    assert set(find_drift(without, window).tests) == {"class_mix", "confidence"}
