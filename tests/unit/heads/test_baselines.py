from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.heads.baselines import BaselineHead, train_knn, train_logreg
from tests.helpers.synthetic_samples import blobs, rings

TRAIN, VAL, TEST = blobs(160, seed=1), blobs(40, seed=2), blobs(80, seed=3)

TRAINERS = {"logreg": train_logreg, "knn": train_knn}


@pytest.mark.parametrize("kind", TRAINERS)
def test_learns_and_answers_with_probabilities(kind: str) -> None:
    ticks: list[int] = []
    head = TRAINERS[kind](TRAIN, VAL, on_fit=lambda: ticks.append(1))
    proba = head.predict_proba(TEST.x)
    assert (proba.argmax(axis=1) == TEST.y).mean() > 0.7
    assert (proba.shape, proba.dtype) == ((80, 4), np.float32)
    assert proba.sum(axis=1) == pytest.approx(np.ones(80), abs=1e-5)
    assert (head.kind, head.dim, head.takes_clips) == (kind, 16, False)
    assert head.predict_proba(TEST.x[:0]).shape == (0, 4)
    assert len(ticks) == len(head.search)


def test_the_best_on_val_is_chosen_and_of_equals_the_smallest() -> None:
    for head, name in ((train_logreg(TRAIN, VAL), "C"), (train_knn(TRAIN, VAL), "k")):
        best = (
            head.search.assign(loss=head.search["val_loss"].round(2))
            .sort_values(["val_accuracy", "loss", name], ascending=[False, True, True])
            .iloc[0]
        )
        assert head.settings == {name: best[name]}
        answers = head.predict_proba(VAL.x).argmax(axis=1)
        assert (answers == VAL.y).mean() == pytest.approx(best["val_accuracy"])


def test_neighbours_separate_classes_that_are_not_linearly_separable() -> None:
    train, val, test = rings(200, seed=1), rings(60, seed=2), rings(100, seed=3)
    # Cosine ignores the radius, and the rings differ only by it.
    assert (train_knn(train, val).predict_proba(test.x).argmax(axis=1) == test.y).mean() < 0.8
    easy = blobs(60, seed=5)
    assert train_knn(easy, easy, ks=(1, 500)).settings == {"k": 1}


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_saved_head_answers_the_same(kind: str, tmp_path: Path) -> None:
    head = TRAINERS[kind](TRAIN, VAL)
    head.save(tmp_path / "head.skops")
    loaded = BaselineHead.load(tmp_path / "head.skops")
    assert (loaded.kind, loaded.classes, dict(loaded.settings)) == (
        kind,
        head.classes,
        dict(head.settings),
    )
    assert np.array_equal(loaded.predict_proba(TEST.x), head.predict_proba(TEST.x))


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_class_without_training_videos_gets_probability_0(kind: str) -> None:
    train = Samples(ids=TRAIN.ids, x=TRAIN.x, y=TRAIN.y + 1, classes=("never", *TRAIN.classes))
    val = Samples(ids=VAL.ids, x=VAL.x, y=(VAL.y + 1) % 4, classes=train.classes)
    proba = TRAINERS[kind](train, val).predict_proba(VAL.x)
    assert proba.shape == (40, 5)
    assert (proba[:, 0] == 0).all()


def test_foreign_files_and_types_are_refused(tmp_path: Path) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    (tmp_path / "head.skops").write_bytes(pickle.dumps({"format": "coinml-knn-1"}))
    for name in ("head.skops", "missing.skops"):
        with pytest.raises(InvalidInputError, match=name):
            BaselineHead.load(tmp_path / name)
    hostile = {"format": "coinml-knn-1", "fitted": FunctionTransformer(func=blobs)}
    skops.io.dump(hostile, tmp_path / "hostile.skops")
    with pytest.raises(InvalidInputError, match="types that are not scikit-learn's"):
        BaselineHead.load(tmp_path / "hostile.skops")
    skops.io.dump({"format": "other"}, tmp_path / "other.skops")
    with pytest.raises(InvalidInputError, match="not a coinml-logreg-1 or coinml-knn-1 head"):
        BaselineHead.load(tmp_path / "other.skops")


def test_options_out_of_range_are_named() -> None:
    with pytest.raises(InvalidInputError, match="cs"):
        train_logreg(TRAIN, VAL, cs=(0.0,))
    for ks in ((), (0, 1), (1000,)):
        with pytest.raises(InvalidInputError, match="ks"):
            train_knn(TRAIN, VAL, ks=ks)
    broken = Samples(ids=VAL.ids, x=VAL.x * np.nan, y=VAL.y, classes=VAL.classes)
    with pytest.raises(InvalidInputError, match="not finite"):
        train_knn(TRAIN, broken)
