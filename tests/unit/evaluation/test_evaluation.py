from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from coinml.errors import InvalidInputError
from coinml.evaluation.calibration import calibration_error, reliability
from coinml.evaluation.evaluate import by_domain, confused_pairs, evaluate
from coinml.evaluation.intervals import macro_f1, proportion
from coinml.evaluation.paired import compare, mcnemar


def scores(predicted: list[int], n_classes: int) -> np.ndarray:
    table = np.full((len(predicted), n_classes), 0.1 / (n_classes - 1))
    table[np.arange(len(predicted)), predicted] = 0.9
    return table


def predictions(labels: list[str], predicted: list[str], first: int = 0) -> pd.DataFrame:
    ids = [f"v{first + i}" for i in range(len(labels))]
    return pd.DataFrame({"video_id": ids, "label": labels, "predicted": predicted})


def test_a_small_case_by_hand() -> None:
    y = np.array([0, 0, 1, 1, 2])
    result = evaluate(y, scores([0, 1, 1, 1, 0], 3), ["a", "b", "c"], official_size=10)
    assert result.accuracy.value == pytest.approx(3 / 5)
    assert result.accuracy_missing_wrong.value == pytest.approx(3 / 10)
    # Manski's bounds: five of the ten were not measured.
    assert result.accuracy_missing_right.value == pytest.approx(8 / 10)
    lower, upper = result.accuracy_missing_wrong, result.accuracy_missing_right
    assert lower.low < lower.value < result.accuracy.value < upper.value < upper.high < 1
    assert (upper.low, upper.high) == (
        pytest.approx(proportion(8, 10).low),
        pytest.approx(proportion(8, 10).high),
    )
    assert result.coverage.value == pytest.approx(1 / 2)
    assert result.top5_accuracy is None
    assert result.majority_rate == pytest.approx(2 / 5)
    assert result.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 0]]
    rows = result.per_class.set_index("class")
    assert rows.loc["a", ["support", "predicted", "correct"]].tolist() == [2, 2, 1]
    assert rows.loc["b", "precision"] == pytest.approx(2 / 3)
    assert rows.loc["c", "recall"] == 0.0
    assert np.isnan(rows.loc["c", "precision"])
    assert result.loss == pytest.approx(-(3 * np.log(0.9) + 2 * np.log(0.05)) / 5)


def test_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score, log_loss, top_k_accuracy_score

    generator = np.random.default_rng(1)
    y = generator.integers(0, 12, 300)
    proba = generator.dirichlet(np.ones(12), 300)
    proba[np.arange(300), y] += 0.1
    proba /= proba.sum(axis=1, keepdims=True)
    result = evaluate(y, proba, [f"c{i}" for i in range(12)])
    predicted = proba.argmax(axis=1)
    assert result.accuracy.value == pytest.approx(accuracy_score(y, predicted))
    assert result.f1_macro.value == pytest.approx(f1_score(y, predicted, average="macro"))
    assert result.top5_accuracy is not None
    assert result.top5_accuracy.value == pytest.approx(top_k_accuracy_score(y, proba, k=5))
    assert result.loss == pytest.approx(log_loss(y, proba))
    # Classes 6 to 11 are never true; classes neither true nor predicted do not count.
    assert macro_f1(y[y < 6], predicted[y < 6], 20) == pytest.approx(
        f1_score(y[y < 6], predicted[y < 6], average="macro")
    )


def test_proportion_agrees_with_statsmodels_and_stays_wide_at_the_edges() -> None:
    from statsmodels.stats.proportion import proportion_confint

    for successes, n in ((0, 7), (3, 3), (83, 108), (2797, 2797), (1, 500)):
        estimate = proportion(successes, n)
        low, high = proportion_confint(successes, n, method="wilson")
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=1e-12)
        assert 0.0 <= estimate.low <= estimate.value <= estimate.high <= 1.0
    assert proportion(3, 3).low < 0.5


def test_scores_equal_to_the_accuracy_are_calibrated() -> None:
    generator = np.random.default_rng(4)
    proba = generator.dirichlet(np.ones(4), 20000)
    y = (generator.random((20000, 1)) > proba.cumsum(axis=1)).sum(axis=1)
    result = evaluate(y, proba, list("abcd"))
    assert result.calibration_error < 0.02
    rows = result.reliability
    assert rows["videos"].sum() == 20000
    inside = (rows["accuracy_low"] <= rows["score"]) & (rows["score"] <= rows["accuracy_high"])
    assert inside.mean() > 0.7
    # The same predictions with overconfident scores.
    bold = proba**3 / (proba**3).sum(axis=1, keepdims=True)
    assert evaluate(y, bold, list("abcd")).calibration_error > 0.1


def test_calibration_by_hand() -> None:
    score, right = np.array([0.95, 0.97, 0.5, 1.0]), np.array([True, False, True, True])
    table = reliability(score, right, bins=10)
    assert table["videos"].tolist() == [1, 3]
    assert table["from"].tolist() == pytest.approx([0.5, 0.9])
    assert table["score"].tolist() == pytest.approx([0.5, 2.92 / 3])
    assert table["accuracy"].tolist() == pytest.approx([1.0, 2 / 3])
    expected = (0.5 + 3 * (2.92 / 3 - 2 / 3)) / 4
    assert calibration_error(table) == pytest.approx(expected)


def test_per_class_numbers_agree_with_scikit_learn() -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    generator = np.random.default_rng(8)
    y = generator.integers(0, 9, 200)
    predicted = np.where(generator.random(200) < 0.5, y, generator.integers(0, 9, 200))
    result = evaluate(y, scores(predicted.tolist(), 9), list("abcdefghi"))
    assert (result.confusion == confusion_matrix(y, predicted)).all()
    precision, recall, f1, support = precision_recall_fscore_support(y, predicted)
    rows = result.per_class
    assert rows["precision"].tolist() == pytest.approx(precision)
    assert rows["recall"].tolist() == pytest.approx(recall)
    assert rows["f1"].tolist() == pytest.approx(f1)
    assert rows["support"].tolist() == support.tolist()


def test_domains_sum_their_classes() -> None:
    confusion = np.array([[5, 1, 0], [2, 3, 1], [0, 0, 4]])
    domains = {"tea": "Drink", "coffee": "Drink"}
    matrix, names = by_domain(confusion, ["tea", "coffee", "tyre"], domains)
    assert names == ("(no domain)", "Drink")
    assert matrix.tolist() == [[4, 0], [1, 11]]


def test_the_most_confused_pairs_come_first() -> None:
    confusion = np.array([[5, 1, 0], [2, 3, 1], [0, 0, 4]])
    pairs = confused_pairs(confusion, ["tea", "coffee", "tyre"])
    assert pairs.to_dict(orient="records") == [
        {"true": "coffee", "predicted": "tea", "videos": 2, "share": pytest.approx(1 / 3)},
        {"true": "coffee", "predicted": "tyre", "videos": 1, "share": pytest.approx(1 / 6)},
        {"true": "tea", "predicted": "coffee", "videos": 1, "share": pytest.approx(1 / 6)},
    ]
    assert confused_pairs(np.eye(3, dtype=np.int64), ["a", "b", "c"]).empty


def test_metrics_have_their_names() -> None:
    y = np.array([0, 1])
    assert not any("top5" in name for name in evaluate(y, scores([0, 1], 5), "abcde").metrics("x"))
    names = set(evaluate(y, scores([0, 1], 6), "abcdef").metrics("test"))
    for name in (
        "test_accuracy",
        "test_accuracy_missing_wrong",
        "test_accuracy_missing_right",
        "test_f1_macro",
        "test_top5_accuracy",
        "test_coverage",
    ):
        assert {name, f"{name}_low", f"{name}_high"} <= names


def test_a_tie_with_the_fifth_best_earns_nothing_in_top_5() -> None:
    # Votes of three neighbours: seven classes have none, and which of these come first is chance.
    proba = np.array([[0.0] * 7 + [0.5, 0.3, 0.2]] * 3)
    found = evaluate(np.array([0, 7, 9]), proba, list("abcdefghij")).top5_accuracy
    assert found is not None
    assert found.value == pytest.approx(2 / 3)
    # The predicted class counts although six others tie with it, so that top-5 >= top-1.
    level = evaluate(np.array([0, 5]), np.full((2, 7), 1 / 7), list("abcdefg"))
    assert level.top5_accuracy is not None
    assert level.top5_accuracy.value == level.accuracy.value == 0.5


def test_arguments_that_cannot_be_evaluated_are_refused() -> None:
    y = np.array([0, 1])
    with pytest.raises(InvalidInputError, match="no videos"):
        evaluate(y[:0], np.zeros((0, 2)), ["a", "b"])
    with pytest.raises(InvalidInputError, match="shape"):
        evaluate(y, np.zeros((2, 3)), ["a", "b"])
    with pytest.raises(InvalidInputError, match="official size 1"):
        evaluate(y, scores([0, 1], 2), ["a", "b"], official_size=1)


def test_mcnemar_is_the_exact_binomial_test() -> None:
    from scipy.stats import binom

    correct_a = np.array([True] * 11 + [False] * 20 + [True] * 30)
    correct_b = np.array([False] * 11 + [True] * 20 + [True] * 30)
    result = mcnemar(correct_a, correct_b)
    assert (result.b, result.c) == (11, 20)
    assert result.p_value == pytest.approx(2 * binom.cdf(11, 31, 0.5), abs=1e-12)
    assert mcnemar(correct_b, correct_a).p_value == result.p_value
    assert mcnemar(correct_a, correct_a).p_value == 1.0
    with pytest.raises(InvalidInputError, match="paired"):
        mcnemar(correct_a, correct_b[:5])


def test_compare_uses_common_videos_only() -> None:
    labels = ["x", "y"] * 20
    a = predictions(labels, labels[:30] + ["z"] * 10)
    b = predictions(labels, ["z"] * 4 + labels[4:])
    result = compare(a, b.iloc[:36])
    assert result.n == 36
    assert (result.mcnemar.b, result.mcnemar.c) == (4, 6)
    assert result.difference.value == pytest.approx(2 / 36)
    assert result.difference.low < 0 < result.difference.high
    assert result.accuracy_a.value == pytest.approx(30 / 36)
    assert result.discordant["right"].value_counts().to_dict() == {"b": 6, "a": 4}
    assert result.discordant.iloc[0].to_dict() == {
        "video_id": "v0",
        "label": "x",
        "predicted_a": "x",
        "predicted_b": "z",
        "right": "a",
    }
    assert (
        result.per_class.to_dict(orient="records")
        == [
            {"class": "y", "support": 18, "correct_a": 15, "correct_b": 16, "difference": 1},
            {"class": "x", "support": 18, "correct_a": 15, "correct_b": 16, "difference": 1},
        ][::-1]
    )


def test_compare_refuses_disjoint_videos_and_different_labels() -> None:
    a = predictions(["x", "y"], ["x", "y"])
    with pytest.raises(InvalidInputError, match="no video in common"):
        compare(a, predictions(["x"], ["x"], first=9))
    with pytest.raises(InvalidInputError, match="'v1' is 'y' in one run and 'x'"):
        compare(a, predictions(["x", "x"], ["x", "x"]))
