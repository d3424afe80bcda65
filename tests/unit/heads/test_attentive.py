"""The attentive head: it finds the clip that shows the class, at any position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.heads.attentive import AttentiveHead, train_attentive
from coinml.heads.mlp import train_mlp
from coinml.heads.training_loop import EpochMetrics
from tests.helpers.synthetic_samples import CLIPS, DIM, needles

SMALL = {"width": 32, "attention_heads": 2, "epochs": 60, "batch_size": 32, "lr": 3e-3}


TRAIN, VAL, TEST = needles(400, seed=1), needles(80, seed=2), needles(200, seed=3)


@pytest.fixture(scope="module")
def head() -> AttentiveHead:
    return train_attentive(TRAIN, VAL, **SMALL)  # type: ignore[arg-type]


def clips_of(samples: Samples) -> np.ndarray:
    assert samples.clips is not None
    return samples.clips


def test_attention_beats_the_mean_where_one_clip_shows_the_class(head: AttentiveHead) -> None:
    proba = head.predict_proba(clips_of(TEST))
    assert proba.dtype == np.float32
    assert proba.sum(axis=1) == pytest.approx(np.ones(200), abs=1e-5)
    attentive = (proba.argmax(axis=1) == TEST.y).mean()
    mlp = train_mlp(TRAIN, VAL, epochs=30, hidden=(32, 16))
    mean = (mlp.predict_proba(TEST.x).argmax(axis=1) == TEST.y).mean()
    assert attentive > 0.9
    assert attentive > mean + 0.15
    assert (head.takes_clips, mlp.takes_clips) == (True, False)


def test_missing_clips_do_not_change_the_answer(head: AttentiveHead) -> None:
    clips = clips_of(TEST).copy()
    # A missing clip is not the same as a clip of zeros.
    clips[:, -1] = np.nan
    absent = head.predict_proba(clips)
    assert np.isfinite(absent).all()
    assert absent == pytest.approx(head.predict_proba(clips[:, :-1]), abs=1e-6)
    clips[:, -1] = 0
    assert not np.allclose(absent, head.predict_proba(clips))


def test_training_takes_videos_with_fewer_clips() -> None:
    train = TRAIN.take(np.arange(80))
    clips = clips_of(train).copy()
    clips[::3, 4:] = np.nan
    few = Samples(ids=train.ids, x=train.x, y=train.y, classes=train.classes, clips=clips)
    seen: list[EpochMetrics] = []
    train_attentive(few, few, **{**SMALL, "epochs": 5}, on_epoch=seen.append)
    assert len(seen) == 5
    assert all(np.isfinite(metrics.train_loss) for metrics in seen)
    assert seen[-1].train_loss < seen[0].train_loss


def test_a_saved_head_answers_the_same(head: AttentiveHead, tmp_path: Path) -> None:
    head.save(tmp_path / "head.safetensors")
    loaded = AttentiveHead.load(tmp_path / "head.safetensors")
    assert (loaded.classes, loaded.dim, loaded.clips) == (("a", "b", "c", "d"), DIM, CLIPS)
    clips = clips_of(TEST)
    assert np.array_equal(loaded.predict_proba(clips), head.predict_proba(clips))
    # Serving computes float32, which is rounded to float16 as in the set.
    exact = clips.astype(np.float32) * (1 + 1e-5)
    assert np.array_equal(loaded.predict_proba(exact), head.predict_proba(clips))


def test_two_trainings_repeat_bit_by_bit() -> None:
    histories: list[list[EpochMetrics]] = [[], []]
    heads = [
        train_attentive(
            TRAIN,
            VAL,
            **{**SMALL, "epochs": 4},
            seed=3,
            class_weights="balanced",
            on_epoch=history.append,
        )
        for history in histories
    ]
    assert histories[0] == histories[1]
    assert len(histories[0]) == 4
    answers = [head.predict_proba(clips_of(TEST)) for head in heads]
    assert np.array_equal(answers[0], answers[1])


def test_unusable_clips_are_refused(head: AttentiveHead) -> None:
    bare = Samples(ids=VAL.ids, x=VAL.x, y=VAL.y, classes=VAL.classes)
    with pytest.raises(InvalidInputError, match="these samples have none"):
        train_attentive(TRAIN, bare)
    nothing = clips_of(VAL).copy()
    nothing[3] = np.nan
    gone = Samples(ids=VAL.ids, x=VAL.x, y=VAL.y, classes=VAL.classes, clips=nothing)
    with pytest.raises(InvalidInputError, match="no clip of '2-3' is embedded"):
        train_attentive(TRAIN, gone)
    with pytest.raises(InvalidInputError, match="attention_heads"):
        train_attentive(TRAIN, VAL, width=30, attention_heads=4)
    for shape in ((2, DIM), (2, CLIPS + 1, DIM), (2, CLIPS, DIM + 1)):
        with pytest.raises(InvalidInputError, match="are needed"):
            head.predict_proba(np.zeros(shape, np.float16))
