"""Intervals and tests: published examples, and coverage in simulations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coinml.evaluation.intervals import (
    clustered_proportion,
    macro_f1,
    macro_f1_estimate,
    proportion,
)
from coinml.evaluation.paired import compare, mcnemar, paired_difference


def answers(both: int, b: int, c: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of two heads: both right, only the first, only the second, neither."""
    counts = (both, b, c, neither)
    return (
        np.repeat([True, True, False, False], counts),
        np.repeat([True, False, True, False], counts),
    )


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_score_interval_is_that_of_newcombe(
    successes: int, n: int, low: float, high: float
) -> None:
    # Newcombe, R. G. (1998). Two-sided confidence intervals for the single proportion.
    # Statistics in Medicine 17, 857-872; table I, method 3.
    estimate = proportion(successes, n)
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


def test_the_score_interval_is_that_of_agrestis_vegetarians() -> None:
    # Agresti, A. (2013). Categorical Data Analysis, 3rd edition, section 1.4.3: none of 25
    # students is a vegetarian; the score interval is (0, 0.133).
    estimate = proportion(0, 25)
    assert estimate.low == 0
    assert estimate.high == pytest.approx(0.133, abs=5e-4)


def test_mcnemar_on_agrestis_approval_ratings() -> None:
    # Agresti, A. (2013). Categorical Data Analysis, 3rd edition, section 11.1: 1,600 Britons
    # were asked twice; z² = 17.36, P < 0.001, and 0.04 (0.02 to 0.06) approve less.
    from statsmodels.stats.contingency_tables import mcnemar as reference

    first, second = answers(794, 150, 86, 570)
    result = mcnemar(first, second)
    assert (result.b, result.c) == (150, 86)
    exact = reference([[794, 150], [86, 570]], exact=True)
    assert result.p_value == pytest.approx(exact.pvalue, abs=1e-12)
    assert result.p_value < 0.001
    asymptotic = reference([[794, 150], [86, 570]], exact=False, correction=False)
    assert asymptotic.statistic == pytest.approx(17.36, abs=5e-3)
    assert result.p_value == pytest.approx(asymptotic.pvalue, abs=1e-5)
    difference = paired_difference(150, 86, 794, 1600)
    assert difference.value == -0.04
    assert (difference.low, difference.high) == pytest.approx((-0.06, -0.02), abs=5e-3)


def test_the_paired_difference_is_that_of_newcombe() -> None:
    # Newcombe, R. G. (1998). Improved confidence intervals for the difference between binomial
    # proportions based on paired data. Statistics in Medicine 17, 2635-2650; cells 36, 12, 2, 0,
    # method 10.
    difference = paired_difference(2, 12, 36, 50)
    assert difference.value == pytest.approx(0.2)
    assert (difference.low, difference.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    other_way = paired_difference(12, 2, 36, 50)
    assert (other_way.low, other_way.high) == pytest.approx((-difference.high, -difference.low))


def test_mcnemar_agrees_with_scipy_and_statsmodels_on_any_table() -> None:
    from scipy.stats import binomtest
    from statsmodels.stats.contingency_tables import mcnemar as reference

    generator = np.random.default_rng(3)
    for b, c in [(0, 0), (0, 1), (7, 7), (1, 400), *generator.integers(0, 90, (60, 2)).tolist()]:
        first, second = answers(20, b, c, 9)
        p = mcnemar(first, second).p_value
        exact = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
        assert p == pytest.approx(exact, abs=1e-9)
        if b + c:
            tabled = reference([[20, b], [c, 9]], exact=True).pvalue
            assert p == pytest.approx(tabled, abs=1e-9)


@pytest.mark.parametrize("truth", [0.3, 0.8])
def test_accuracy_interval_covers_at_its_nominal_rate(truth: float) -> None:
    hits = np.random.default_rng(0).binomial(500, truth, size=2000)
    covered = [(e := proportion(int(h), 500)).low <= truth <= e.high for h in hits]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("shares", [(0.7, 0.05, 0.1, 0.15), (0.25, 0.05, 0.05, 0.65)])
def test_the_paired_interval_covers_at_its_nominal_rate(shares: tuple[float, ...]) -> None:
    tables = np.random.default_rng(1).multinomial(500, shares, size=2000)
    truth = shares[2] - shares[1]
    covered = [
        (e := paired_difference(b, c, both, 500)).low <= truth <= e.high
        for both, b, c, _ in tables.tolist()
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_the_interval_of_identical_answers_has_a_width() -> None:
    few, many = paired_difference(0, 0, 5, 6), paired_difference(0, 0, 500, 600)
    assert few.value == many.value == 0
    assert few.low < many.low < 0 < many.high < few.high
    assert many.high < 0.02


def simulated(
    n_classes: int, n: int, right: float, fall: float, tests: int
) -> tuple[float, list[tuple[np.ndarray, np.ndarray]]]:
    """Macro-F1 of a population of classes of falling size, and test sets drawn from it."""
    generator = np.random.default_rng(n)
    size = 1 / np.arange(1, n_classes + 1) ** fall
    recall = np.clip(right + 0.15 * np.sin(1.7 * np.arange(n_classes)), 0.02, 0.99)
    population = np.diag(recall)
    for row in range(n_classes):
        others = np.delete(np.arange(n_classes), row)
        wrong = generator.choice(others, 5, replace=False)
        population[row, wrong] = generator.dirichlet(np.ones(5)) * (1 - recall[row])
    population *= (size / size.sum())[:, None]
    f1 = 2 * population.diagonal() / (population.sum(axis=0) + population.sum(axis=1))
    cells = generator.choice(n_classes**2, (tests, n), p=population.ravel() / population.sum())
    return float(f1.mean()), [(row // n_classes, row % n_classes) for row in cells]


@pytest.mark.parametrize(
    ("n_classes", "n", "right", "fall", "tests"),
    [
        pytest.param(6, 120, 0.9, 0.0, 300, id="like mini"),
        pytest.param(30, 300, 0.6, 1.0, 200, id="the rarest class has two or three videos"),
        pytest.param(180, 2797, 0.4, 0.3, 60, id="COIN's test side"),
    ],
)
def test_macro_f1_interval_covers_where_classes_are_rare(
    n_classes: int, n: int, right: float, fall: float, tests: int
) -> None:
    truth, drawn = simulated(n_classes, n, right, fall, tests)
    estimates = [macro_f1_estimate(y, predicted, n_classes) for y, predicted in drawn]
    assert np.mean([e.low <= truth <= e.high for e in estimates]) >= 0.93
    assert all(0 <= e.low <= e.value <= e.high <= 1 for e in estimates)
    # Nor are the intervals too wide: the ideal width is 3.9 standard deviations.
    widths, spread = [e.high - e.low for e in estimates], np.std([e.value for e in estimates])
    assert np.mean(widths) < 6 * spread


def test_the_macro_f1_interval_contains_the_estimate_where_each_class_has_one_video() -> None:
    generator = np.random.default_rng(2)
    y = np.arange(180)
    for share in (0.0, 0.3, 0.9, 1.0):
        predicted = np.where(generator.random(180) < share, y, generator.permutation(180))
        estimate = macro_f1_estimate(y, predicted, 180)
        assert estimate.value == macro_f1(y, predicted, 180)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.high - estimate.low > 0.01


def test_the_macro_f1_interval_of_three_correct_answers_has_a_width() -> None:
    y = np.array([0, 1, 2])
    estimate = macro_f1_estimate(y, y, 3)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == proportion(3, 3).low
    one = macro_f1_estimate(y[:1], y[:1], 3)
    assert (one.value, one.low) == (1.0, proportion(1, 1).low)


def test_identical_answers_of_a_group_count_as_one() -> None:
    generator = np.random.default_rng(6)
    covered, plain = [], []
    for _ in range(400):
        # 150 videos of four segments each; a video's segments are right or wrong together.
        right = generator.random(150) < 0.6
        hits, groups = np.repeat(right, 4), np.repeat(np.arange(150), 4)
        estimate = clustered_proportion(hits, groups)
        alone = proportion(int(right.sum()), 150)
        assert (estimate.low, estimate.high) == pytest.approx((alone.low, alone.high), abs=1e-3)
        covered.append(estimate.low <= 0.6 <= estimate.high)
        naive = proportion(int(hits.sum()), 600)
        plain.append(naive.low <= 0.6 <= naive.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
    assert np.mean(plain) < 0.8


def test_groups_of_one_row_change_nothing_and_a_single_group_has_a_wide_interval() -> None:
    generator = np.random.default_rng(7)
    y = generator.integers(0, 5, 80)
    predicted = np.where(generator.random(80) < 0.6, y, generator.integers(0, 5, 80))
    hits, alone = y == predicted, np.arange(80)
    grouped, plain = clustered_proportion(hits, alone), proportion(int(hits.sum()), 80)
    assert (grouped.low, grouped.high) == pytest.approx((plain.low, plain.high), abs=2e-3)
    one, other = (
        macro_f1_estimate(y, predicted, 5, groups=alone),
        macro_f1_estimate(y, predicted, 5),
    )
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    wide = macro_f1_estimate(y, predicted, 5, groups=alone // 8)
    assert wide.value == one.value
    sure = macro_f1_estimate(y, y, 5, groups=alone // 40)
    # Two groups have one degree of freedom, t = 12.7, and Wilson's interval of two is too narrow.
    assert sure.value == 1.0
    assert sure.low == pytest.approx(2 / (2 + 12.7062**2), abs=1e-5)
    everything = clustered_proportion(np.ones(80, dtype=bool), alone // 40)
    assert everything.low == sure.low < proportion(2, 2).low
    # One group says nothing about the others, and the estimate says so.
    single = macro_f1_estimate(y, y, 5, groups=np.zeros(80))
    assert (single.low, single.high) == (0.0, 1.0)
    assert "1 group: too few" in str(single)
    assert "2 groups: too few" in str(everything)


def test_missing_rows_count_as_wrong_in_groups_too() -> None:
    hits = np.array([True] * 30 + [False] * 10)
    estimate = clustered_proportion(hits, np.arange(40), 60)
    assert estimate.value == 0.5
    alone = proportion(30, 60)
    assert estimate.low == pytest.approx(alone.low, abs=0.03)
    assert estimate.low < 0.5 < estimate.high


def test_segments_of_one_video_are_not_counted_as_independent() -> None:
    generator = np.random.default_rng(9)
    found = {"covered": [], "plain": [], "p": [], "plain p": []}
    for _ in range(100):
        # 80 videos of five segments that are right or wrong together, and equally good heads.
        right = generator.random((2, 80)) < 0.6
        a, b = (np.repeat(row, 5) for row in right)
        ids = [f"v{i // 5}#{i % 5}" for i in range(400)]
        labels = np.full(400, "x")
        tables = [
            pd.DataFrame(
                {"video_id": ids, "label": labels, "predicted": np.where(hits, "x", "y")}
            ).assign(of_video=[name.partition("#")[0] for name in ids])
            for hits in (a, b)
        ]
        grouped = compare(*tables)
        naive = mcnemar(a, b)
        plain = paired_difference(naive.b, naive.c, int((a & b).sum()), 400)
        assert grouped.difference.value == pytest.approx(plain.value)
        assert (grouped.mcnemar.b, grouped.mcnemar.c) == (naive.b, naive.c)
        found["covered"].append(grouped.difference.low <= 0 <= grouped.difference.high)
        found["plain"].append(plain.low <= 0 <= plain.high)
        found["p"].append(grouped.mcnemar.p_value < 0.05)
        found["plain p"].append(naive.p_value < 0.05)
    assert np.mean(found["covered"]) >= 0.9
    assert np.mean(found["p"]) <= 0.08
    # The test that ignores the videos.
    assert np.mean(found["plain"]) < 0.8
    assert np.mean(found["plain p"]) > 0.2


def test_the_jackknife_agrees_with_leaving_out_one_row_at_a_time() -> None:
    # Efron & Tibshirani (1993), eq. 11.3 and 11.5, video by video instead of cell by cell.
    from coinml.evaluation.intervals import score_interval

    generator = np.random.default_rng(5)
    y = generator.integers(0, 4, 40)
    predicted = np.where(generator.random(40) < 0.6, y, generator.integers(0, 4, 40))
    value = macro_f1(y, predicted, 4)
    without = np.array([macro_f1(np.delete(y, i), np.delete(predicted, i), 4) for i in range(40)])
    variance = 39 / 40 * ((without - without.mean()) ** 2).sum()
    unbiased = value - 39 * (without.mean() - value)
    ends = [
        end
        for centre in (value, unbiased)
        for end in score_interval(centre, min(40.0, centre * (1 - centre) / variance))
    ]
    estimate = macro_f1_estimate(y, predicted, 4)
    assert (estimate.low, estimate.high) == pytest.approx((min(ends), max(ends)))
