"""The score from which answers are taken: what it promises, simulated."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from coinml.evaluation.abstention import ValAnswers, fewest_videos, threshold_for


def test_the_promised_precision_is_kept() -> None:
    rng = np.random.default_rng(0)
    tries, found, broken = 300, 0, 0
    for _ in range(tries):
        score = rng.beta(4, 1, 1000)
        threshold = threshold_for(score, rng.random(1000) < score, 0.9)
        if threshold is not None:
            found += 1
            # Of a Beta(4, 1) score that is the chance to be right, the mean above t.
            t = threshold.score
            broken += 0.8 * (1 - t**5) / (1 - t**4) < 0.9
    assert found > 0.9 * tries
    assert broken <= 0.05 * tries


def test_the_best_of_many_thresholds_would_not_keep_it() -> None:
    """Scores that say nothing: precision by choice of the threshold alone."""
    rng = np.random.default_rng(1)
    chosen = [threshold_for(rng.random(400), rng.random(400) < 0.85, 0.9) for _ in range(200)]
    assert sum(one is not None for one in chosen) <= 0.05 * 200


def test_all_that_can_be_taken_is_taken() -> None:
    score = np.linspace(1, 0, 500)
    correct = np.arange(500) < 300
    threshold = threshold_for(score, correct, 0.9)
    assert threshold is not None
    assert (threshold.videos, threshold.right) == (500, 300)
    assert 300 < threshold.taken < 330
    assert (score >= threshold.score).sum() == threshold.taken
    assert f"{threshold.taken} have such a score and 300 of these are right" in str(threshold)


def test_equal_scores_are_taken_together() -> None:
    score = np.array([1.0] * 100 + [0.5] * 10)
    correct = np.array([True] * 100 + [False] * 10)
    threshold = threshold_for(score, correct, 0.95)
    assert threshold is not None
    assert (threshold.score, threshold.taken) == (1.0, 100)
    correct[:6] = False
    assert threshold_for(score, correct, 0.95) is None


@pytest.mark.parametrize("videos", [0, 1, 58])
def test_few_videos_show_no_precision(videos: int) -> None:
    assert fewest_videos(0.95) == 59
    assert threshold_for(np.ones(videos), np.ones(videos, dtype=bool), 0.95) is None


def test_as_many_right_answers_as_it_takes() -> None:
    threshold = threshold_for(np.ones(59), np.ones(59, dtype=bool), 0.95)
    assert threshold is not None
    assert threshold.taken == 59


def test_the_table_has_the_threshold_of_each_precision_that_val_shows() -> None:
    predictions = pd.DataFrame(
        {
            "split": ["test"] * 5 + ["val"] * 400,
            "label": "Cut",
            "predicted": ["Fry"] * 5 + ["Cut"] * 300 + ["Fry"] * 100,
            "score": np.float32(1.0) - np.arange(405, dtype=np.float32) / 3000,
        }
    )
    answers = ValAnswers.of(predictions)
    again = ValAnswers.from_dict(json.loads(json.dumps(answers.as_dict())))
    table = answers.table()
    pd.testing.assert_frame_equal(again.table(), table)
    assert table["precision"].tolist() == [0.8, 0.9, 0.95, 0.98, 0.99]
    assert (table["videos"] == 400).all()
    # 299 right answers without an error show 0.99.
    assert table["taken"].is_monotonic_decreasing
    assert table["taken"].iloc[-1] >= 299
    assert (table["right"] / table["taken"] >= table["precision"]).all()
    for row in table.itertuples():
        assert answers.threshold(row.precision).score == row.score
        assert (answers.score >= row.score).sum() == row.taken
