"""What the gate asks of a first champion and of a challenger, and how it counts tries."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from coinml.evaluation.paired import mcnemar
from coinml.evaluation.superiority import Answers, answers_of, least_right, least_wins, p_better
from coinml.registry.promotion import GATE_TRIES, promote
from coinml.registry.versions import CHAMPION
from coinml.tracking.mlflow_store import MlflowStore
from coinml.tracking.run_log import RunLog
from tests.helpers.made_up_versions import NAME, candidate, holder, tags


def tries(store: MlflowStore) -> dict[str, object]:
    recorded: dict[str, object] = json.loads(
        store.client().get_registered_model(NAME).tags[GATE_TRIES]
    )
    return recorded


def test_a_first_champion_that_is_good_on_val_alone_is_refused(store: MlflowStore) -> None:
    candidate(store, right=0.8, test_right=0.35)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "its val accuracy 0.800 lies above the majority class (0.333)" in verdict.reason
    assert "but its test accuracy 0.350 does not lie above" in verdict.reason
    assert "these 60 test videos could show it from 29 right answers up" in verdict.reason
    assert holder(store, CHAMPION) is None


def test_a_first_champion_needs_enough_test_coverage(store: MlflowStore) -> None:
    version = candidate(store, right=0.8, coverage=0.4)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "measured on 40% of the official test videos; 50% are needed" in verdict.reason
    assert promote(store, NAME, [version], coverage_floor=0.3)[0].promoted


def test_videos_that_cannot_show_anything_are_named_and_no_try_is_spent(
    store: MlflowStore,
) -> None:
    candidate(store, right=1.0, ids=range(3))
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    # Three right answers of three have p = 1/27 on val, where 0.025 would pass.
    assert "these 3 val videos could not show it with any answers" in verdict.reason
    assert verdict.reason.endswith(
        "not counted as a try, since only p up to 0.02 would pass on test"
    )
    assert (verdict.attempt, verdict.level) == (None, None)
    assert tries(store)["tries"] == 0
    candidate(store, right=0.8)
    assert promote(store, NAME)[0].attempt == 1


def test_each_try_is_counted_and_needs_more(store: MlflowStore) -> None:
    candidate(store, right=0.5)
    found = promote(store, NAME)
    # Other val videos that overlap are tries as well.
    for right, videos in ((0.55, 60), (0.6, 50), (0.75, 40)):
        candidate(store, right=right, ids=range(videos))
        found += promote(store, NAME)
    assert [verdict.attempt for verdict in found] == [1, 2, 3, 4]
    assert [verdict.promoted for verdict in found] == [True, False, False, False]
    levels = [verdict.level for verdict in found]
    assert levels == pytest.approx([0.02, 0.01, 0.005, 0.0025], rel=1e-3)
    for verdict in found:
        assert f"; try {verdict.attempt}, p up to {verdict.level:.2g} passes" in verdict.reason
        assert tags(store, verdict.version)["gate_try"] == str(verdict.attempt)
    assert tries(store)["tries"] == 4
    assert tries(store)["champion"] == str(found[0].version)


def test_versions_of_one_call_share_a_level(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    versions = [candidate(store, right=right) for right in (0.61, 0.65)]
    verdicts = promote(store, NAME, versions)
    assert {verdict.attempt for verdict in verdicts} == {2, 3}
    assert [verdict.level for verdict in verdicts] == pytest.approx([0.005, 0.005], rel=1e-3)


def test_the_same_comparison_is_the_same_try(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    version = candidate(store, right=0.65)
    (first,) = promote(store, NAME)
    before = tries(store)
    (again,) = promote(store, NAME, [version])
    assert again == first
    # Neither is one that was interrupted after the try was recorded and before its verdict.
    for tag in ("gate", "gate_reason", "gate_try", "gate_level"):
        store.client().delete_model_version_tag(NAME, str(version), tag)
    assert promote(store, NAME) == [first]
    assert tries(store) == before


def test_versions_that_an_earlier_coinml_judged_count_as_tries(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    store.client().delete_registered_model_tag(NAME, GATE_TRIES)
    candidate(store, right=0.65)
    assert promote(store, NAME)[0].attempt == 2


def test_a_refusal_says_what_the_videos_could_have_shown(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    candidate(store, right=0.65)
    (verdict,) = promote(store, NAME)
    assert "(+0.050, McNemar p = 0.25 (0 against 3), one-sided 0.125)" in verdict.reason
    assert "they could show a gain from 7 videos up; try 2, p up to 0.01" in verdict.reason


def test_a_champion_with_few_errors_cannot_be_replaced_by_a_test_and_that_is_said(
    store: MlflowStore,
) -> None:
    candidate(store, right=0.9)
    promote(store, NAME)
    before = tries(store)
    version = candidate(store, right=1.0)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert (
        "they could show a gain from 7 videos up, and the champion is wrong in only 6: collect "
        f"more val videos, or decide yourself: `coinml promote --version {version} --because TEXT`"
    ) in verdict.reason
    assert verdict.attempt is None
    assert tries(store) == before


def test_a_version_from_a_larger_search_needs_a_smaller_p(store: MlflowStore) -> None:
    old = candidate(store, right=0.6)
    promote(store, NAME)
    # Eight gains and no loss: p = 1/256, below 0.01 and above 0.001.
    new = candidate(store, right=0.6 + 8 / 60)
    for version, settings in ((old, 2), (new, 20)):
        store.client().set_model_version_tag(NAME, str(version), "settings_tried", str(settings))
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert (
        "try 2, p up to 0.001 passes, since val chose it from 10 times as many settings as the "
        "champion"
    ) in verdict.reason
    store.client().set_model_version_tag(NAME, str(old), "settings_tried", "20")
    assert promote(store, NAME, [new])[0].promoted


def test_numbers_that_are_no_tags_of_a_version_are_read_from_its_run(store: MlflowStore) -> None:
    old = candidate(store, right=0.6, test_right=0.8)
    promote(store, NAME)
    new = candidate(store, right=0.9, test_right=0.7)
    # Eight gains and no loss: p = 1/256, below 0.01 and above 0.001.
    later = candidate(store, right=0.6 + 8 / 60, test_right=0.8)
    client = store.client()
    for version, settings in ((old, 2), (new, 2), (later, 20)):
        client.delete_model_version_tag(NAME, str(version), "test_accuracy_low")
        run_id = client.get_model_version(NAME, str(version)).run_id
        client.set_tag(run_id, "settings_tried", str(settings))
        client.log_metric(run_id, "test_interval/accuracy_low", 0.75)
    verdicts = {verdict.version: verdict.reason for verdict in promote(store, NAME, [new, later])}
    assert "its test accuracy 0.700 lies below the champion's interval" in verdicts[new]
    assert "since val chose it from 10 times as many settings as the champion" in verdicts[later]


def test_segments_are_judged_by_videos(store: MlflowStore) -> None:
    version = candidate(store, right=0.9)
    run_id = store.client().get_model_version(NAME, str(version)).run_id
    table = store.read_table(run_id, "predictions")
    # Thirty segments of each of two videos: far too few videos for any conclusion.
    table["of_video"] = [f"{split}{row % 60 // 30}" for row, split in enumerate(table["split"])]
    RunLog(store.client(), run_id).table("predictions", table)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "these 2 val videos could not show it with any answers" in verdict.reason


def test_answers_of_segments_count_each_video_once() -> None:
    segments = pd.DataFrame(
        {
            "label": ["a", "a", "b", "a", "b", "b"],
            "predicted": ["a", "a", "b", "a", "a", "b"],
            "of_video": ["v", "v", "v", "v", "w", "w"],
        }
    )
    # Video v is right in 4 of 4 segments and w in 1 of 2, rounded down; a is 3/4 of v, 0 of w.
    assert answers_of(segments) == Answers(right=1, n=2, majority_rate=0.625)
    whole = answers_of(segments.drop(columns="of_video"))
    assert whole == Answers(right=5, n=6, majority_rate=0.5)
    assert answers_of(segments.iloc[:0]).p_value == 1.0


def test_groups_at_chance_seldom_pass_and_good_ones_do() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(12), 5)
    passed = 0
    for _ in range(200):
        labels = rng.integers(0, 4, len(groups))
        # Nine of ten rows of a group are right or wrong together.
        together, lucky = rng.random(len(groups)) < 0.9, (rng.random(12) < 0.25)[groups]
        joint = np.where(lucky, labels, (labels + 1) % 4)
        predicted = np.where(together, joint, rng.integers(0, 4, len(groups)))
        table = pd.DataFrame({"label": labels, "predicted": predicted, "group": groups})
        passed += answers_of(table).p_value <= 0.025
    assert passed <= 0.025 * 200
    good = answers_of(table.assign(predicted=table["label"]))
    assert (good.right, good.n, good.units) == (12, 12, "groups")
    assert good.p_value < 1e-3


def test_the_exact_tests_agree_with_scipy() -> None:
    from scipy.stats import binomtest

    for losses, wins in ((0, 6), (3, 12), (5, 5), (9, 2), (0, 0)):
        if losses + wins:
            reference = binomtest(wins, losses + wins, 0.5, alternative="greater").pvalue
            assert p_better(losses, wins) == pytest.approx(reference)
        correct = np.array([True] * losses + [False] * wins + [True], dtype=bool)
        other = np.array([False] * losses + [True] * wins + [True], dtype=bool)
        paired = p_better(losses, wins) if wins > losses else 1.0
        assert mcnemar(correct, other).p_better == pytest.approx(paired)
    for right, n, rate in ((4, 8, 0.25), (12, 12, 0.5), (0, 5, 0.2)):
        reference = binomtest(right, n, rate, alternative="greater").pvalue
        assert Answers(right=right, n=n, majority_rate=rate).p_value == pytest.approx(reference)
    for level in (0.05, 0.02, 0.01, 0.0003):
        wins = least_wins(level)
        assert p_better(0, wins) <= level < p_better(0, wins - 1)
        least = least_right(12, 0.25, level)
        assert least is not None
        passing = [
            k for k in range(13) if Answers(right=k, n=12, majority_rate=0.25).p_value <= level
        ]
        assert least == min(passing)
    assert least_right(2, 0.5, 0.05) is None


def test_the_one_sided_test_of_segments_is_over_videos() -> None:
    # One video gains five segments, three videos lose one each: as likely the other way round.
    before = np.array([False] * 5 + [True] * 3)
    after = ~before
    tested = mcnemar(before, after, groups=["a"] * 5 + ["b", "c", "d"])
    assert (tested.b, tested.c) == (3, 5)
    assert tested.p_better == 0.5


def test_persons_count_once_at_the_gate(store: MlflowStore) -> None:
    candidate(store, right=0.6)
    promote(store, NAME)
    new = candidate(store, right=0.9)
    run_id = store.client().get_model_version(NAME, str(new)).run_id
    table = store.read_table(run_id, "predictions")
    # The 18 gains are videos of three persons.
    table["group"] = [f"person {row % 60 // 6}" for row in range(len(table))]
    RunLog(store.client(), run_id).table("predictions", table)
    (verdict,) = promote(store, NAME)
    assert not verdict.promoted
    assert "on 60 common val videos in 10 groups (+0.300" in verdict.reason
    assert "a gain from 7 groups up, and the champion is wrong in only 4" in verdict.reason
