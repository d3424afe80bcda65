from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.heads import svm_search
from coinml.heads.files import read_head
from coinml.heads.kinds import load_head
from coinml.heads.pairwise import kernel_values, solve
from coinml.heads.svm import FitMetrics, SVMHead, train_svm
from tests.helpers.synthetic_samples import blobs, rings

TRAIN, VAL, TEST = blobs(160, seed=1), blobs(40, seed=2), blobs(80, seed=3)


def test_learns_and_answers_with_probabilities() -> None:
    head = train_svm(TRAIN, VAL)
    proba = head.predict_proba(TEST.x)
    assert (proba.argmax(axis=1) == TEST.y).mean() > 0.8
    assert proba.shape == (80, 4)
    assert proba.dtype == np.float32
    assert proba.sum(axis=1) == pytest.approx(np.ones(80), abs=1e-5)
    assert head.dim == 16
    assert head.predict_proba(TEST.x[:0]).shape == (0, 4)


def test_val_chooses_the_kernel_and_the_search_is_kept() -> None:
    seen: list[FitMetrics] = []
    head = train_svm(
        rings(200, seed=1),
        rings(60, seed=2),
        linear_cs=(1.0, 10.0),
        cs=(1.0, 10.0),
        gammas=(1.0,),
        on_fit=seen.append,
    )
    assert head.kernel == "rbf"
    assert [(m.kernel, m.c) for m in seen] == [
        ("linear", 1.0),
        ("linear", 10.0),
        ("rbf", 1.0),
        ("rbf", 10.0),
    ]
    assert [m.fit for m in seen] == [1, 2, 3, 4]
    assert {m.fits for m in seen} == {4}
    assert head.search["val_accuracy"].tolist() == [m.val_accuracy for m in seen]
    test = rings(100, seed=3)
    assert (head.predict_proba(test.x).argmax(axis=1) == test.y).mean() > 0.9


def test_of_equal_settings_the_simplest_is_chosen() -> None:
    easy = blobs(80, seed=4)
    wide = Samples(ids=easy.ids, x=easy.x, y=easy.y, classes=easy.classes)
    far = Samples(
        ids=wide.ids,
        x=wide.x + 1e3 * np.eye(16, dtype=np.float32)[wide.y],
        y=wide.y,
        classes=wide.classes,
    )
    head = train_svm(far, far, kernels=("linear",), linear_cs=(100.0, 1.0))
    assert (head.kernel, head.c) == ("linear", 1.0)
    # Of equal accuracies the lowest loss wins, and of equal losses the simplest setting.
    both = train_svm(far, far, linear_cs=(100.0, 1.0), gammas=(1.0,))
    assert set(both.search["val_accuracy"]) == {1.0}
    best = both.search.assign(loss=both.search["val_loss"].round(2)).sort_values(
        ["loss", "fit"], ignore_index=True
    )
    assert (both.kernel, both.c) == (best["kernel"][0], best["c"][0])


def test_the_search_on_kernel_matrices_agrees_with_plain_scikit_learn() -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    head = train_svm(TRAIN, VAL)
    assert len(head.search) == 4 + 4 * 3
    for row in head.search.itertuples():
        gamma = "scale" if row.kernel == "linear" else row.gamma / 16
        plain = make_pipeline(
            StandardScaler(), SVC(kernel=row.kernel, C=row.c, gamma=gamma, break_ties=True)
        ).fit(TRAIN.x.astype(np.float64), TRAIN.y)
        assert plain.score(VAL.x.astype(np.float64), VAL.y) == pytest.approx(row.val_accuracy)


def test_scores_rank_the_errors_and_the_classes_are_those_of_the_votes() -> None:
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    many = blobs(900, seed=5)
    head = train_svm(TRAIN, VAL, kernels=("rbf",), cs=(1.0,), gammas=(1.0,))
    plain = make_pipeline(StandardScaler(), SVC(C=1.0, gamma=1 / 16, break_ties=True))
    theirs = plain.fit(TRAIN.x.astype(np.float64), TRAIN.y).predict(many.x.astype(np.float64))
    proba = head.predict_proba(many.x)
    assert np.array_equal(proba.argmax(axis=1), theirs)
    assert roc_auc_score(theirs == many.y, proba.max(axis=1)) > 0.8
    assert len(np.unique(proba.max(axis=1))) > 800


def test_a_head_of_an_earlier_version_answers_as_it_did(tmp_path: Path) -> None:
    head = train_svm(TRAIN, VAL, kernels=("linear",), linear_cs=(0.1,))
    head.vote_temperature = 0.7
    head.save(tmp_path / "old.safetensors")
    old = load_head(tmp_path / "old.safetensors")
    assert read_head(tmp_path / "old.safetensors", "svm").description["temperature"] == 0.7
    kernel = kernel_values(head._scaler(TEST.x), head._vectors, None)
    votes = head._machine.decision(kernel) / 0.7
    shares = np.exp(votes - votes.max(axis=1, keepdims=True))
    expected = shares / shares.sum(axis=1, keepdims=True)
    assert old.predict_proba(TEST.x) == pytest.approx(expected, abs=1e-6)


def test_a_class_without_training_videos_gets_probability_0() -> None:
    train = Samples(ids=TRAIN.ids, x=TRAIN.x, y=TRAIN.y + 1, classes=("never", *TRAIN.classes))
    val = Samples(ids=VAL.ids, x=VAL.x, y=(VAL.y + 1) % 4, classes=train.classes)
    head = train_svm(train, val, kernels=("linear",), linear_cs=(1.0,))
    proba = head.predict_proba(VAL.x)
    assert proba.shape == (40, 5)
    assert (proba[:, 0] == 0).all()


def test_a_saved_head_answers_the_same(tmp_path: Path) -> None:
    for samples, val in ((TRAIN, VAL), (rings(80, seed=1), rings(40, seed=2))):
        head = train_svm(samples, val)
        head.save(tmp_path / "head.safetensors")
        loaded = SVMHead.load(tmp_path / "head.safetensors")
        assert loaded.classes == head.classes
        assert (loaded.kernel, loaded.c, loaded.gamma) == (head.kernel, head.c, head.gamma)
        assert np.array_equal(loaded.predict_proba(val.x), head.predict_proba(val.x))


def test_two_trainings_repeat_bit_by_bit() -> None:
    first, second = train_svm(TRAIN, VAL), train_svm(TRAIN, VAL)
    assert np.array_equal(first.predict_proba(TEST.x), second.predict_proba(TEST.x))
    assert first.search.equals(second.search)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"\x80\x04junk")
    for name in ("junk.safetensors", "missing.safetensors"):
        with pytest.raises(InvalidInputError, match=name):
            SVMHead.load(tmp_path / name)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_machines_decide_as_scikit_learn_does(classes: int) -> None:
    from sklearn.svm import SVC

    generator = np.random.default_rng(classes)
    x, new = generator.normal(size=(90, 5)), generator.normal(size=(700, 5))
    y = generator.permutation(np.arange(90) % classes)
    gram, kernel = kernel_values(x, x, 0.5), kernel_values(new, x, 0.5)
    theirs = SVC(kernel="precomputed", C=2.0).fit(gram, y).decision_function(kernel)
    machine = solve(gram, y, 2.0)
    ours = machine.decision(kernel, machine.support)
    if classes == 2:
        assert np.array_equal(ours.argmax(axis=1), theirs > 0)
        assert (ours[:, 1] - ours[:, 0] > 0).tolist() == (theirs > 0).tolist()
    else:
        assert ours == pytest.approx(theirs, abs=1e-9)


def test_a_larger_c_that_changes_nothing_is_not_fitted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    solved: list[float] = []

    def counted(gram: object, y: object, c: float) -> object:
        solved.append(c)
        return solve(gram, y, c)  # type: ignore[arg-type]

    monkeypatch.setattr(svm_search, "solve", counted)
    head = train_svm(TRAIN, VAL, kernels=("linear",), linear_cs=(1e-3, 1e3, 1e5, 1e6), jobs=2)
    assert sorted(solved) == [1e-3, 1e3]
    assert head.search["c"].tolist() == [1e-3, 1e3, 1e5, 1e6]
    assert len(set(head.search["val_f1_macro"][1:])) == 1


def test_parallel_fits_give_the_same_head() -> None:
    one, many = train_svm(TRAIN, VAL, jobs=1), train_svm(TRAIN, VAL, jobs=4)
    assert one.search.equals(many.search)
    assert np.array_equal(one.predict_proba(TEST.x), many.predict_proba(TEST.x))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("kernels", ("poly",)),
        ("cs", (0.0,)),
        ("linear_cs", (-1.0,)),
        ("gammas", ()),
        ("kernels", ()),
    ],
)
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=option):
        train_svm(TRAIN, VAL, **{option: value})
