"""Every head's scores rank its errors and are as high as its answers are right."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from coinml.embedding_sets.table import Samples
from coinml.evaluation.calibration import calibration_error, reliability
from coinml.heads.calibration import BOUNDS, CalibratedHead, calibrate, fit_temperature, temper
from coinml.heads.fit_head import fit_head
from coinml.heads.kinds import HEADS, head_file, load_head
from coinml.heads.protocol import Head, head_input
from tests.helpers.nearest_mean import NearestMeanHead
from tests.helpers.synthetic_samples import blobs, task_like

SMALL = task_like(240, 40, 1500, classes=6)


def quality(head: Head, test: Samples) -> tuple[float, float]:
    """Expected calibration error, and AUROC of the score against a right answer."""
    proba = head.predict_proba(head_input(head, test))
    assert proba.sum(axis=1) == pytest.approx(np.ones(len(test)), abs=1e-5)
    right, score = proba.argmax(axis=1) == test.y, proba.max(axis=1)
    assert 0.7 < right.mean() < 0.97
    return calibration_error(reliability(np.minimum(score, 1), right)), roc_auc_score(right, score)


@pytest.mark.parametrize("name", HEADS)
def test_scores_are_calibrated_although_val_has_forty_videos(name: str, tmp_path: Path) -> None:
    train, val, test = SMALL
    head = fit_head(name, train, val)
    error, ranks = quality(head, test)
    assert error <= 0.05
    assert ranks >= (0.75 if name == "knn" else 0.85)
    raw = fit_head(name, train, val, calibrated=False)
    proba = head.predict_proba(head_input(head, test))
    assert np.array_equal(
        proba.argmax(axis=1), raw.predict_proba(head_input(head, test)).argmax(axis=1)
    )
    assert dict(head.settings) == {**raw.settings, "temperature": head.settings["temperature"]}
    head.save(tmp_path / head_file(name))
    loaded = load_head(tmp_path / head_file(name))
    assert loaded.settings["temperature"] == head.settings["temperature"]
    assert np.array_equal(loaded.predict_proba(head_input(loaded, test)), proba)
    # An earlier version's file has no temperature, and its scores stay as they were.
    raw.save(tmp_path / head_file(name))
    assert type(load_head(tmp_path / head_file(name))) is type(raw)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("name", HEADS)
def test_scores_are_calibrated_at_the_size_of_coin(name: str) -> None:
    train, val, test = task_like(7676, 1354, 2797, classes=180)
    head = fit_head(name, train, val)
    error, ranks = quality(head, test)
    assert error <= 0.05
    proba = head.predict_proba(head_input(head, test))
    assert proba.max(axis=1).mean() == pytest.approx(
        (proba.argmax(axis=1) == test.y).mean(), abs=0.05
    )
    assert ranks >= (0.75 if name == "knn" else 0.85)


@pytest.mark.parametrize("k", [1, 20])
def test_neighbours_scores_are_calibrated_with_many_classes(k: int) -> None:
    train, val, test = task_like(1500, 300, 2500, classes=60)
    error, ranks = quality(fit_head("knn", train, val, options={"ks": [k]}), test)
    assert error <= 0.03
    assert ranks >= 0.96


def test_one_neighbour_has_a_confidence_too() -> None:
    train, val, test = SMALL
    _, ranks = quality(fit_head("knn", train, val, options={"ks": [1]}), test)
    assert ranks >= 0.75


def test_a_val_without_errors_does_not_make_every_score_1() -> None:
    train, _, test = SMALL
    fitted = fit_head("svm", train, train.take(np.arange(40)), calibrated=False)
    proba = fitted.predict_proba(train.x)
    easy = train.take(np.flatnonzero(proba.argmax(axis=1) == train.y)[:30])
    head = fit_head("svm", train, easy)
    assert (head.predict_proba(easy.x).argmax(axis=1) == easy.y).all()
    error, ranks = quality(head, test)
    assert error <= 0.08
    assert ranks >= 0.85


def test_folds_keep_groups_together_and_classes_in_proportion() -> None:
    train = blobs(180, seed=1)
    paired = Samples(
        ids=train.ids,
        x=train.x,
        y=np.repeat(train.y[:90], 2),
        classes=train.classes,
        groups=tuple(f"video {i // 2}" for i in range(180)),
    )
    asked: list[Samples] = []

    def refit(part: Samples) -> Head:
        asked.append(part)
        return NearestMeanHead(np.zeros((4, 16), np.float32), part.classes, 1.0)

    calibrate(refit(paired), paired, blobs(30, seed=2), refit=refit)
    _, *rests = asked
    assert len(rests) == 3
    left_out = [set(paired.ids) - set(rest.ids) for rest in rests]
    assert set.union(*left_out) == set(paired.ids)
    assert sum(map(len, left_out)) == 180
    for rest in rests:
        counts = np.bincount(rest.y)
        assert counts.max() - counts.min() <= 4
        assert set(rest.groups).isdisjoint(set(paired.groups) - set(rest.groups))
        assert len(set(rest.groups)) * 2 == len(rest)


def test_a_large_val_alone_fixes_the_temperature() -> None:
    def refit(part: Samples) -> Head:
        raise AssertionError("no head is fitted again")

    head = NearestMeanHead(np.zeros((4, 16), np.float32), tuple("abcd"), 1.0)
    assert calibrate(head, blobs(40, seed=1), blobs(500, seed=2), refit=refit).temperature > 0


def test_scores_that_say_nothing_are_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(NearestMeanHead):
        def predict_proba(self, x: np.ndarray) -> np.ndarray:  # type: ignore[override]
            proba = np.full((len(x), 4), 1e-3, dtype=np.float32)
            proba[:, 3] = 1 - 3e-3
            return proba

    wrong = Wrong(np.zeros((4, 16), np.float32), tuple("abcd"), 1.0)
    val = blobs(600, seed=1)
    only = val.take(val.y != 3)
    with caplog.at_level(logging.WARNING):
        head = calibrate(wrong, val, only.take(np.arange(400)), refit=lambda _: wrong)
    assert head.temperature == pytest.approx(BOUNDS[1], rel=0.01)
    assert "at the bound" in caplog.text
    caplog.clear()
    fit_head("logreg", *SMALL[:2])
    assert not caplog.text


def test_the_temperature_is_that_of_the_lowest_loss() -> None:
    generator = np.random.default_rng(0)
    truth = 2.0 * generator.normal(size=(20_000, 5))
    proba = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    y = (proba.cumsum(axis=1) > generator.random((len(proba), 1))).argmax(axis=1)
    for temperature in (0.5, 1.0, 3.0):
        # Scores that are too sharp or too flat by this factor.
        given = temper(proba, 1 / temperature)
        assert fit_temperature(given, y)[0] == pytest.approx(temperature, rel=0.03)
        assert temper(given, temperature) == pytest.approx(proba, abs=1e-4)


def test_a_class_without_a_score_is_left_out_of_the_fit() -> None:
    proba = np.array([[0.7, 0.3, 0.0], [0.4, 0.6, 0.0], [0.8, 0.2, 0.0]])
    known = fit_temperature(proba, np.array([0, 1, 1]))
    more = fit_temperature(np.concatenate([proba, proba]), np.array([0, 1, 1, 2, 2, 2]))
    assert more == pytest.approx(known)
    assert (temper(proba, 3.0)[:, 2] == 0).all()
    assert temper(proba[:0], 3.0).shape == (0, 3)
    assert CalibratedHead(NearestMeanHead(np.zeros((3, 4)), "abc", 1.0), 2.0).dim == 4
