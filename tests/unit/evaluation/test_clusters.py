"""Rows in groups: variance and degrees of freedom, coverage in simulations, and the exact test."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from coinml.evaluation.clusters import clustered_mean, freedom_of, members, t_quantile
from coinml.evaluation.evaluate import evaluate
from coinml.evaluation.intervals import clustered_proportion, macro_f1_estimate, proportion
from coinml.evaluation.paired import clustered_difference, compare, mcnemar


def drawn(
    generator: np.random.Generator, sizes: np.ndarray, share: float, alike: float
) -> tuple[np.ndarray, np.ndarray]:
    """Answers in groups of these sizes, with an intra-class correlation of `alike`, and groups."""
    a = max(1 / alike - 1, 1e-9) if alike else 0.0
    of_group = generator.beta(share * a, (1 - share) * a, len(sizes)) if alike else share
    rate = np.repeat(of_group, sizes) if alike else np.full(sizes.sum(), share)
    return generator.random(len(rate)) < rate, np.repeat(np.arange(len(sizes)), sizes)


def test_variance_and_freedom_are_those_of_the_matrices() -> None:
    # Bell & McCaffrey (2002) for a mean: hat matrix, CR2 adjustment and Satterthwaite as matrices.
    generator = np.random.default_rng(0)
    sizes = np.array([3, 1, 7, 4])
    member = np.repeat(np.arange(4), sizes)
    values = generator.normal(size=15)
    weight = sizes / 15
    residuals = values - values.mean()
    sums = np.array([residuals[member == g].sum() for g in range(4)])
    found = clustered_mean(values, member)
    assert found.variance == pytest.approx((sums**2 / (1 - weight)).sum() / 15**2)
    assert found.worth == pytest.approx(15**2 / (sizes**2).sum())
    freedoms = []
    for variance in (sizes, sizes**2):
        centre = np.eye(4) - np.outer(weight, np.ones(4))
        half = np.diag(1 / np.sqrt(1 - weight)) @ centre
        covariance = half @ np.diag(variance) @ half.T
        freedoms.append(np.trace(covariance) ** 2 / np.trace(covariance @ covariance))
    assert found.freedom == pytest.approx(min(freedoms))
    # With groups of one size it is the t-test on the groups' means.
    assert freedom_of(np.full(6, 5.0)) == pytest.approx(5)
    equal = clustered_mean(values, np.repeat(np.arange(5), 3))
    means = values.reshape(5, 3).mean(axis=1)
    assert equal.variance == pytest.approx(means.var(ddof=1) / 5)
    assert t_quantile(equal.freedom) == pytest.approx(stats.t.ppf(0.975, 4))


@pytest.mark.parametrize(
    ("n_groups", "size", "share", "alike"),
    [
        (5, 20, 0.6, 0.1),
        (5, 20, 0.6, 0.3),
        (8, 20, 0.6, 0.3),
        (10, 20, 0.8, 0.1),
        (20, 20, 0.8, 0.3),
        (40, 20, 0.9, 0.1),
        (40, 0, 0.7, 0.3),
    ],
)
def test_accuracy_over_groups_covers_at_its_nominal_rate(
    n_groups: int, size: int, share: float, alike: float
) -> None:
    generator = np.random.default_rng(n_groups + size)
    covered, plain, said = [], [], []
    for _ in range(1000):
        sizes = np.full(n_groups, size) if size else generator.geometric(1 / 10, n_groups)
        hits, groups = drawn(generator, sizes, share, alike)
        estimate = clustered_proportion(hits, groups)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        covered.append(estimate.low <= share <= estimate.high)
        said.append(bool(estimate.caveat))
        naive = proportion(int(hits.sum()), len(hits))
        plain.append(naive.low <= share <= naive.high)
    assert np.mean(covered) >= 0.93
    # Where it is wider than it should be, most of the estimates say so.
    assert np.mean(covered) <= 0.97 + 0.007 or np.mean(said) > 0.5
    assert np.mean(plain) < 0.86


@pytest.mark.parametrize(("n_groups", "share"), [(5, 0.8), (8, 0.95), (15, 0.95)])
def test_an_interval_that_cannot_be_exact_is_wide_and_says_so(n_groups: int, share: float) -> None:
    generator = np.random.default_rng(n_groups)
    covered, said = [], []
    for _ in range(600):
        hits, groups = drawn(generator, np.full(n_groups, 20), share, 0.6)
        estimate = clustered_proportion(hits, groups)
        covered.append(estimate.low <= share <= estimate.high)
        said.append("may be too wide" in estimate.caveat)
    assert np.mean(covered) >= 0.93
    assert np.mean(said) > 0.9


@pytest.mark.parametrize(
    ("n_groups", "size", "share", "alike"),
    [(5, 20, 0.8, 0.3), (8, 4, 0.6, 0.3), (8, 4, 0.8, 0.1), (15, 0, 0.6, 0.3), (30, 0, 0.95, 0.3)],
)
def test_intervals_of_few_or_unequal_groups_say_that_they_may_cover_too_often(
    n_groups: int, size: int, share: float, alike: float
) -> None:
    generator = np.random.default_rng(n_groups + size)
    covered, said = [], []
    for _ in range(400):
        sizes = np.full(n_groups, size) if size else generator.geometric(1 / 10, n_groups)
        hits, groups = drawn(generator, sizes, share, alike)
        estimate = clustered_proportion(hits, groups)
        covered.append(estimate.low <= share <= estimate.high)
        said.append("may be too wide" in estimate.caveat)
    assert np.mean(covered) >= 0.95
    assert np.mean(said) >= 0.85


@pytest.mark.parametrize(("n_groups", "size"), [(10, 4), (20, 0)])
def test_a_difference_of_few_unequal_or_unmoved_groups_says_so(n_groups: int, size: int) -> None:
    generator = np.random.default_rng(size)
    covered, said = [], []
    for _ in range(200):
        sizes = np.full(n_groups, size) if size else generator.geometric(1 / 10, n_groups)
        a, b, groups = pairs(generator, sizes, (0.95, 0.95))
        estimate = clustered_difference(a, b, groups.tolist())
        covered.append(estimate.low <= 0 <= estimate.high)
        said.append("may be too wide" in estimate.caveat)
    assert np.mean(covered) >= 0.97
    assert np.mean(said) >= 0.9


def pairs(
    generator: np.random.Generator, sizes: np.ndarray, shares: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers of two heads that agree in part, each with an effect of the group."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    ours, own = generator.normal(size=(1, len(sizes))), generator.normal(size=(2, len(sizes)))
    row, each = generator.normal(size=(1, len(groups))), generator.normal(size=(2, len(groups)))
    effect = (0.8 * ours + 0.6 * own)[:, groups]
    score = np.sqrt(0.3) * effect + np.sqrt(0.7) * (0.8 * row + 0.6 * each)
    a, b = score < stats.norm.ppf(shares)[:, None]
    return a, b, groups


@pytest.mark.parametrize("n_groups", [5, 10, 30])
def test_difference_and_test_over_groups_keep_their_rates(n_groups: int) -> None:
    generator = np.random.default_rng(n_groups)
    covered, false, naive, apart = [], [], [], []
    for _ in range(600):
        a, b, groups = pairs(generator, np.full(n_groups, 20), (0.75, 0.75))
        estimate = clustered_difference(a, b, groups)
        covered.append(estimate.low <= 0 <= estimate.high)
        false.append(mcnemar(a, b, groups=groups).p_value < 0.05)
        naive.append(mcnemar(a, b).p_value < 0.05)
        a, b, groups = pairs(generator, np.full(n_groups, 20), (0.6, 0.75))
        estimate = clustered_difference(a, b, groups)
        apart.append(estimate.low <= 0.15 <= estimate.high)
    assert 0.93 <= np.mean(covered) <= 0.99
    assert 0.93 <= np.mean(apart) <= 0.99
    assert np.mean(false) <= 0.05 + 0.02
    # The test that takes rows as independent.
    assert np.mean(naive) > 0.15
    if n_groups == 5:
        # Five groups cannot show a difference: the smallest p is 2 / 2⁵.
        assert not any(false)


def test_the_test_over_groups_is_the_permutation_test_of_scipy() -> None:
    generator = np.random.default_rng(4)
    for n_groups in (4, 7, 9):
        a, b, groups = pairs(generator, generator.integers(1, 9, n_groups), (0.5, 0.7))
        gains = np.bincount(groups, weights=b.astype(float) - a)
        reference = stats.permutation_test(
            (gains,), np.sum, permutation_type="samples", n_resamples=np.inf
        )
        found = mcnemar(a, b, groups=groups)
        assert found.p_value == pytest.approx(reference.pvalue)
        assert sum(found.gains.values()) == (gains != 0).sum()
        # It follows from what is reported.
        told = [gain for gain, count in found.gains.items() for _ in range(count)]
        sums = [
            abs(np.dot(signs, told)) >= abs(sum(told))
            for signs in itertools.product((-1, 1), repeat=len(told))
        ]
        assert found.p_value == pytest.approx(np.mean(sums))


def test_the_test_over_groups_of_one_row_is_mcnemars() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.random((2, 300)) < np.array([[0.6], [0.7]])
    assert mcnemar(a, b, groups=np.arange(300)).p_value == mcnemar(a, b).p_value
    alone, plain = (clustered_difference(a, b, np.arange(300)), compare(*tables(a, b)).difference)
    assert (alone.low, alone.high) == (plain.low, plain.high)


def tables(
    a: np.ndarray, b: np.ndarray, groups: np.ndarray | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of two heads, the second with groups."""
    first, second = (
        pd.DataFrame(
            {
                "video_id": [f"v{i}" for i in range(len(right))],
                "label": "x",
                "predicted": np.where(right, "x", "y"),
            }
        )
        for right in (a, b)
    )
    return first, second if groups is None else second.assign(group=groups.astype(str))


def test_a_comparison_uses_the_groups_of_either_run_in_any_order() -> None:
    a, b, groups = pairs(np.random.default_rng(6), np.full(12, 10), (0.6, 0.8))
    first, second = tables(a, b, groups)
    for one, other in ((first, second), (second, first)):
        found = compare(one, other.sample(frac=1, random_state=0))
        assert found.groups == 12
        assert found.mcnemar.p_value == mcnemar(a, b, groups=groups).p_value
        assert found.accuracy_b.low < proportion(int((b if one is first else a).sum()), 120).low
    assert compare(first, first).groups is None


def test_identical_answers_over_groups_leave_a_width() -> None:
    a, groups = np.arange(40) % 2 == 0, np.repeat(np.arange(8), 5)
    same = clustered_difference(a, a, groups)
    alone = clustered_difference(a, a, np.arange(40))
    assert same.low < alone.low < 0 < alone.high < same.high
    single = clustered_difference(a, ~a, np.zeros(40))
    assert (single.low, single.high) == (-1.0, 1.0)


def test_every_number_of_an_evaluation_accounts_for_groups() -> None:
    generator = np.random.default_rng(8)
    hits, groups = drawn(generator, np.full(10, 20), 0.7, 0.4)
    y = generator.integers(0, 3, 200)
    proba = np.full((200, 3), 0.1)
    proba[np.arange(200), np.where(hits, y, (y + 1) % 3)] = 0.8
    grouped = evaluate(y, proba, "abc", groups=groups)
    plain = evaluate(y, proba, "abc")
    assert (grouped.groups, plain.groups) == (10, 200)
    assert grouped.metrics("test")["test_groups"] == 10
    assert "test_groups" not in plain.metrics("test")
    for name in ("accuracy", "accuracy_missing_wrong", "f1_macro"):
        wide, narrow = getattr(grouped, name), getattr(plain, name)
        assert wide.value == narrow.value
        assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low), name
    low = grouped.reliability["accuracy_low"]
    assert (low < plain.reliability["accuracy_low"]).all()


def test_macro_f1_over_groups_covers() -> None:
    generator = np.random.default_rng(9)
    covered = []
    for _ in range(300):
        hits, groups = drawn(generator, np.full(8, 20), 0.7, 0.3)
        y = np.tile(np.arange(2), 80)
        estimate = macro_f1_estimate(y, np.where(hits, y, 1 - y), 2, groups=groups)
        covered.append(estimate.low <= 0.7 <= estimate.high)
    assert np.mean(covered) >= 0.93


def test_what_is_printed_names_the_rows_and_gives_the_numbers_of_the_p() -> None:
    a, b, groups = pairs(np.random.default_rng(11), np.full(30, 4), (0.6, 0.75))
    plain = compare(*tables(a, b))
    assert plain.counted("test") == "120 test videos"
    assert plain.tested.endswith(f"({plain.mcnemar.b} against {plain.mcnemar.c})")
    grouped = compare(*tables(a, b, groups))
    assert grouped.counted("test") == "120 test videos in 30 groups"
    steps = compare(*(one.assign(of_video=groups.astype(str)) for one in tables(a, b)))
    assert steps.counted("common val") == "120 common val segments of 30 videos"
    for found, unit in ((grouped, "group"), (steps, "video")):
        told = re.findall(rf"([+-]\d+) in (\d+) {unit}", found.tested)
        gains = [int(gain) for gain, count in told for _ in range(int(count))]
        # Difference and p follow from the printed numbers.
        assert sum(gains) / 120 == pytest.approx(found.difference.value)
        reference = stats.permutation_test(
            (gains,), np.sum, permutation_type="samples", n_resamples=20_000, random_state=0
        )
        assert found.mcnemar.p_value == pytest.approx(reference.pvalue, abs=0.01)
        assert f"p = {found.mcnemar.p_value:.3g}" in found.tested


def test_groups_may_have_any_names() -> None:
    assert members(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert members([3, 3, 10]).tolist() == [1, 1, 0]
