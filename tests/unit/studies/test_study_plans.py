"""The conditions of a study, and the intervals and tests of its differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri
from typer.testing import CliRunner

from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import proportion
from coinml.evaluation.paired import mcnemar
from coinml.studies.estimates import accuracy, difference
from coinml.studies.plans import STUDIES, make_plan
from coinml.studies.subsets import nested_order, subset_size
from coinml_cli.app import app

OPTIONS = SetOptions(encoder="tiny")


def names(study: str, *conditions: str) -> list[str]:
    return [condition.name for condition in make_plan(study, OPTIONS, conditions).conditions]


# --- conditions


def test_the_reference_is_always_among_the_conditions() -> None:
    assert names("tokens", "0.25") == ["100 %", "25 %"]
    assert names("clips", "2") == ["2", "8"]
    assert names("data", "50") == ["50 %", "100 %"]
    assert names("resolution", "144p") == ["144p", "original"]
    assert names("snap", "keyframe") == ["exact", "keyframe"]
    for study in STUDIES:
        plan = make_plan(study, OPTIONS)
        assert study == "dims" or plan.reference in [c.name for c in plan.conditions]
        assert plan.question.endswith("?")


def test_conditions_with_sets_differ_in_one_option_only() -> None:
    plan = make_plan("clips", SetOptions(encoder="tiny", stride=2), ("1", "4"))
    made = [condition.set_options for condition in plan.conditions]
    assert [one.clips for one in made if one] == [1, 4, 8]
    assert {one.stride for one in made if one} == {2}
    assert plan.has_sets
    assert not make_plan("data", OPTIONS).has_sets


@pytest.mark.parametrize(
    ("study", "condition", "says"),
    [
        ("colour", "1", "one of snap, tokens"),
        ("tokens", "1.5", "above 0 and up to 1"),
        ("data", "none", "above 0 and up to 100"),
        ("clips", "0", "whole numbers from 1"),
        ("resolution", "8", "whole numbers from 16"),
        ("snap", "near", "near: allowed are exact and keyframe"),
    ],
)
def test_an_unknown_condition_says_what_is_allowed(study: str, condition: str, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        make_plan(study, OPTIONS, (condition,))


def test_the_command_refuses_wrong_options_before_it_starts_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COINML_HOME", str(tmp_path))

    def study(*arguments: str) -> None:
        CliRunner().invoke(app, ["study", *arguments], catch_exceptions=False)

    with pytest.raises(InvalidInputError, match="study 'colour'"):
        study("colour")
    with pytest.raises(InvalidInputError, match="tasks or domains, not steps"):
        study("data", "--target", "step")
    with pytest.raises(InvalidInputError, match="forest"):
        study("data", "--heads", "forest")
    assert list(tmp_path.iterdir()) == []


def test_small_subsets_are_contained_in_large_ones_and_have_every_class() -> None:
    y = np.repeat([0, 1, 2, 3], (60, 30, 8, 2))
    order = nested_order(y, seed=1)
    assert sorted(order) == list(range(100))
    assert set(y[order[:4]]) == {0, 1, 2, 3}
    for share in (0.2, 0.5):
        size = subset_size(y, share)
        counts = np.bincount(y[order[:size]], minlength=4)
        assert np.abs(counts - share * np.bincount(y)).max() <= 2
    assert subset_size(y, 0.01) == 4
    assert not np.array_equal(order, nested_order(y, seed=2))
    assert np.array_equal(order, nested_order(y, seed=1))


# --- intervals and tests


def test_with_one_seed_the_interval_of_an_accuracy_is_wilsons() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random(80) < 0.8, rng.random(80) < 0.6
    assert accuracy(a[None]) == proportion(int(a.sum()), 80)
    gap = difference(b[None], a[None])
    # The exact test asks the same question, so that its p is near.
    assert gap.p_value == pytest.approx(mcnemar(a, b).p_value, abs=0.02)
    assert (gap.lost, gap.gained) == (int((a & ~b).sum()), int((b & ~a).sum()))
    assert gap.value.value == pytest.approx(b.mean() - a.mean())


def paired(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, only_a, only_b, neither]
    return np.repeat([True, True, False, False], counts), np.repeat(
        [True, False, True, False], counts
    )


def test_the_paired_interval_is_bonetts_and_prices() -> None:
    """Counts of Newcombe (1998), table II, whose interval is 0.0569 to 0.3404."""
    a, b = paired(36, 12, 2, 0)
    e = difference(a[None], b[None]).value
    # Bonett and Price: (13 - 3) / 52, and the variance of 13 gains and 3 losses among 52.
    error = ((13 + 3) / 52 - (10 / 52) ** 2) ** 0.5 / 51**0.5
    assert (e.value, e.low, e.high) == (
        pytest.approx(0.20),
        pytest.approx(10 / 52 - 2.0076 * error, abs=1e-4),
        pytest.approx(10 / 52 + 2.0076 * error, abs=1e-4),
    )
    assert (e.low, e.high) == (pytest.approx(0.0569, abs=0.015), pytest.approx(0.3404, abs=0.015))


def test_interval_and_test_never_contradict_each_other() -> None:
    shown = 0
    for only_a in range(0, 16):
        for only_b in range(0, 16):
            for both in (0, 20, 200):
                a, b = paired(both, only_a, only_b, 5)
                gap = difference(a[None], b[None])
                outside = gap.value.low > 0 or gap.value.high < 0
                assert outside == gap.shown, (only_a, only_b, both)
                shown += gap.shown
    assert shown > 100


def test_variation_between_seeds_widens_the_interval() -> None:
    steady = np.tile(np.arange(100) < 70, (3, 1))
    rng = np.random.default_rng(0)
    moving = np.stack([rng.random(100) < p for p in (0.55, 0.7, 0.85)])
    assert accuracy(moving).high - accuracy(moving).low > 1.3 * (
        accuracy(steady).high - accuracy(steady).low
    )
    assert accuracy(steady) == accuracy(steady[:1])


def test_without_a_difference_the_test_of_several_seeds_rarely_rejects() -> None:
    rng = np.random.default_rng(0)
    cries = 0
    for _ in range(60):
        hard = rng.random(60)
        one, other = (rng.random((3, 60)) > hard for _ in range(2))
        cries += difference(one, other).shown
    assert cries <= 8
    worse = rng.random((3, 60)) > 0.9
    assert difference(worse, rng.random((3, 60)) > 0.3).shown
    same = difference(worse, worse)
    assert same.p_value == 1.0
    assert same.value.low < 0 < same.value.high


def test_with_several_seeds_interval_and_test_agree_and_depend_on_the_seeds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        hard = rng.random(90)
        one, other = rng.random((3, 90)) > hard, rng.random((3, 90)) > hard - 0.05
        gap = difference(one, other)
        assert gap.shown == (not gap.value.low <= 0 <= gap.value.high)
    # Every seed gains on the same ten videos; then one seed gains on thirty, the others on none.
    base = np.zeros((3, 100), bool)
    alike, alone = base.copy(), base.copy()
    alike[:, :10] = True
    alone[0, :30] = True
    assert difference(alike, base).value.value == difference(alone, base).value.value
    assert difference(alike, base).shown
    assert not difference(alone, base).shown


def test_answers_on_different_videos_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="5 and 6 videos"):
        difference(np.ones((1, 5), bool), np.ones((1, 6), bool))
    with pytest.raises(InvalidInputError, match=r"\(seeds, videos\)"):
        accuracy(np.ones((2, 0), bool))


def test_over_groups_equal_heads_differ_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 20)
    found = []
    for _ in range(200):
        of_group = 0.8 * rng.normal(size=10) + 0.6 * rng.normal(size=(2, 10))
        each = 0.8 * rng.normal(size=200) + 0.6 * rng.normal(size=(2, 200))
        a, b = np.sqrt(0.3) * of_group[:, groups] + np.sqrt(0.7) * each < ndtri(0.75)
        gap, alone = difference(b[None], a[None], groups.tolist()), difference(b[None], a[None])
        assert gap.shown != (gap.value.low <= 0 <= gap.value.high)
        assert gap.value.low <= alone.value.low
        assert gap.value.high >= alone.value.high
        assert gap.p_value >= alone.p_value
        held = accuracy(b[None], groups.tolist())
        found.append([gap.shown, alone.shown, held.low <= 0.75 <= held.high])
    wrong, wrong_alone, covered = np.mean(found, axis=0)
    assert wrong <= 0.08
    assert wrong_alone >= 0.2
    assert covered >= 0.92


def test_groups_of_one_video_change_nothing_and_few_groups_are_said() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 3, 60)) < np.array([[0.6], [0.7]])[:, None]
    ones = [f"p{number}" for number in range(60)]
    plain, alone = difference(b, a), difference(b, a, ones)
    assert (alone.p_value, alone.value.low) == pytest.approx((plain.p_value, plain.value.low))
    assert accuracy(a, ones) == accuracy(a)
    three = difference(b, a, [number // 20 for number in range(60)])
    assert three.value.caveat == "3 groups: too few for an interval"
    assert accuracy(a, [number // 20 for number in range(60)]).caveat == three.value.caveat
