"""The power law of learning curves, on curves with known parameters."""

from __future__ import annotations

import numpy as np
import pytest

from coinml.errors import InvalidInputError
from coinml.studies.power_law import fit_power_law

SIZES = (50, 100, 200, 400, 800, 1600)


def curve(n: float, a: float = 0.1, b: float = 3.0, c: float = 0.5) -> float:
    return a + b * n**-c


def answers(*, seeds: int, videos: int, seed: int = 0) -> np.ndarray:
    """Wrong answers of a head whose chance of one follows the law; videos differ in difficulty."""
    rng = np.random.default_rng(seed)
    hard = rng.random((1, 1, videos))
    shifts = rng.normal(0, 0.02, (len(SIZES), seeds, videos))
    return hard + shifts < np.array([curve(n) for n in SIZES])[:, None, None]


def test_the_parameters_of_a_curve_without_noise_are_recovered() -> None:
    exact = np.array([curve(n) for n in SIZES])[:, None, None]
    law = fit_power_law(SIZES, exact, draws=20)
    assert law.a.value == pytest.approx(0.1, abs=1e-4)
    assert law.b.value == pytest.approx(3.0, rel=1e-3)
    assert law.c.value == pytest.approx(0.5, abs=1e-3)
    assert law.predict(9030).value == pytest.approx(curve(9030), abs=1e-4)


def test_the_interval_of_a_prediction_covers_at_its_nominal_rate() -> None:
    held = 0
    for trial in range(14):
        law = fit_power_law(SIZES, answers(seeds=3, videos=400, seed=trial), draws=40, seed=trial)
        predicted = law.predict(6400)
        held += predicted.low <= curve(6400) <= predicted.high
    assert held >= 11


def test_more_test_videos_make_the_interval_of_a_prediction_narrower() -> None:
    widths = []
    for videos in (100, 3000):
        predicted = fit_power_law(SIZES, answers(seeds=3, videos=videos), draws=40).predict(6400)
        assert predicted.low <= predicted.value <= predicted.high
        widths.append(predicted.high - predicted.low)
    assert widths[1] < widths[0] / 2


def test_copies_of_a_video_in_one_group_are_worth_one_video() -> None:
    wrong = answers(seeds=3, videos=100)
    copied = np.repeat(wrong, 10, axis=2)

    def width(wrong: np.ndarray, groups: list[int] | None = None) -> float:
        predicted = fit_power_law(SIZES, wrong, groups=groups, draws=60).predict(6400)
        return predicted.high - predicted.low

    in_groups = width(copied, np.repeat(np.arange(100), 10).tolist())
    assert in_groups == pytest.approx(width(wrong), rel=0.3)
    assert width(copied) < in_groups / 2


def test_a_flat_curve_predicts_no_gain_from_more_data() -> None:
    rng = np.random.default_rng(0)
    wrong = np.broadcast_to(rng.random((1, 3, 500)) < 0.4, (6, 3, 500))
    law = fit_power_law(SIZES, wrong, draws=40)
    assert law.predict(100_000).value == pytest.approx(float(wrong.mean()), abs=0.02)


def test_three_sizes_are_too_few_for_three_parameters() -> None:
    with pytest.raises(InvalidInputError, match="needs 4 training sizes"):
        fit_power_law((10, 20, 40, 40), np.zeros((4, 2, 9)))
    with pytest.raises(InvalidInputError, match="2 sizes with answers of shape"):
        fit_power_law((10, 20), np.zeros((4, 2, 9)))
