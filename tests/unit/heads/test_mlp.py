from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.heads.mlp import EpochMetrics, MLPHead, train_mlp


def blobs(n: int, *, seed: int, classes: int = 4, dim: int = 16, shift: float = 3.0) -> Samples:
    """Overlapping clouds around fixed centres, far from zero and unevenly scaled."""
    centres = np.random.default_rng(99).normal(size=(classes, dim))
    generator = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = (centres[y] + 0.7 * generator.normal(size=(n, dim))) * np.geomspace(0.01, 100, dim) + shift
    return Samples(
        ids=tuple(f"{seed}-{i}" for i in range(n)),
        x=x.astype(np.float32),
        y=y.astype(np.int64),
        classes=tuple("abcdef"[:classes]),
    )


TRAIN, VAL, TEST = blobs(160, seed=1), blobs(40, seed=2), blobs(80, seed=3)
SMALL = {"hidden": (32, 16), "epochs": 30, "patience": 10, "batch_size": 32, "lr": 0.01}


def test_learns_standardised_data_and_reports_every_epoch() -> None:
    seen: list[EpochMetrics] = []
    head = train_mlp(TRAIN, VAL, **SMALL, on_epoch=seen.append)
    proba = head.predict_proba(TEST.x)
    assert (proba.argmax(axis=1) == TEST.y).mean() > 0.8
    assert proba.dtype == np.float32
    assert proba.sum(axis=1) == pytest.approx(np.ones(80), abs=1e-5)
    assert head.classes == ("a", "b", "c", "d")
    assert head.dim == 16
    assert [m.epoch for m in seen] == list(range(1, len(seen) + 1))
    assert seen[-1].train_loss < seen[0].train_loss
    assert all(later.lr <= earlier.lr for earlier, later in pairwise(seen[1:]))


def test_keeps_the_best_epoch_and_stops_early() -> None:
    seen: list[EpochMetrics] = []
    head = train_mlp(TRAIN, VAL, **{**SMALL, "epochs": 300, "dropout": 0.0}, on_epoch=seen.append)
    best = min(seen, key=lambda m: m.val_loss)
    assert head.best_epoch == best.epoch
    assert seen[-1].epoch == best.epoch + 10 < 300
    proba = head.predict_proba(VAL.x)
    loss = -np.log(proba[np.arange(len(VAL)), VAL.y]).mean()
    assert loss == pytest.approx(best.val_loss, abs=1e-4)
    assert (proba.argmax(axis=1) == VAL.y).mean() == pytest.approx(best.val_accuracy)


def test_two_trainings_repeat_bit_by_bit_even_in_threads() -> None:
    heads: list[MLPHead] = []
    histories: list[list[EpochMetrics]] = [[], [], []]

    def fit(history: list[EpochMetrics]) -> None:
        heads.append(train_mlp(TRAIN, VAL, **SMALL, seed=7, on_epoch=history.append))

    torch.manual_seed(123)
    fit(histories[0])
    before = torch.random.get_rng_state()
    threads = [threading.Thread(target=fit, args=(history,)) for history in histories[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert histories[0] == histories[1] == histories[2]
    first = heads[0].predict_proba(TEST.x)
    assert len(heads) == 3
    assert all(np.array_equal(first, head.predict_proba(TEST.x)) for head in heads)
    assert torch.equal(before, torch.random.get_rng_state())
    other = train_mlp(TRAIN, VAL, **SMALL, seed=8)
    assert not np.array_equal(first, other.predict_proba(TEST.x))


def test_a_saved_head_answers_the_same(tmp_path: Path) -> None:
    head = train_mlp(TRAIN, VAL, **SMALL)
    head.save(tmp_path / "head.safetensors")
    loaded = MLPHead.load(tmp_path / "head.safetensors")
    assert loaded.classes == head.classes
    assert loaded.best_epoch == head.best_epoch
    assert np.array_equal(loaded.predict_proba(TEST.x), head.predict_proba(TEST.x))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"\x80\x04junk")
    for path in (tmp_path / "junk.safetensors", tmp_path / "missing.safetensors"):
        with pytest.raises(InvalidInputError, match=path.name):
            MLPHead.load(path)
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(InvalidInputError, match="not a coinml-mlp-1 head"):
        MLPHead.load(tmp_path / "weights.safetensors")


def test_constant_columns_and_classes_without_videos_are_handled() -> None:
    train = Samples(
        ids=TRAIN.ids,
        x=np.hstack([TRAIN.x, np.full((len(TRAIN), 1), 5.0, np.float32)]),
        y=TRAIN.y,
        classes=("a", "b", "c", "d", "never"),
    )
    val = Samples(
        ids=VAL.ids,
        x=np.hstack([VAL.x, np.full((len(VAL), 1), 5.0, np.float32)]),
        y=VAL.y,
        classes=train.classes,
    )
    proba = train_mlp(train, val, **SMALL).predict_proba(val.x)
    assert np.isfinite(proba).all()
    assert proba.shape == (40, 5)
    assert (proba.argmax(axis=1) == val.y).mean() > 0.8


def test_a_callback_can_end_the_training() -> None:
    def stop(metrics: EpochMetrics) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_mlp(TRAIN, VAL, **SMALL, on_epoch=stop)


@pytest.mark.parametrize(
    ("option", "value"), [("epochs", 0), ("dropout", 1.0), ("batch_size", 0), ("device", "gpuu")]
)
def test_options_out_of_range_are_named(option: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=option):
        train_mlp(TRAIN, VAL, **{**SMALL, option: value})


def test_values_that_are_not_finite_are_refused() -> None:
    broken = Samples(ids=VAL.ids, x=VAL.x * np.nan, y=VAL.y, classes=VAL.classes)
    with pytest.raises(InvalidInputError, match="not finite"):
        train_mlp(TRAIN, broken, **SMALL)
