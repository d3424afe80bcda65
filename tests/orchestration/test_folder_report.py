"""A small class folder: cross-validated by default, with groups and contradictions told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.artifacts import Artifact

from coinml.collection.options import CollectOptions
from coinml.embedding_sets.options import SetOptions
from coinml.selection import Selection
from coinml.training.options import TrainOptions
from coinml_cli.result_tables import print_heads
from flows.pipeline import pipeline
from flows.train import train
from tasks.artifact_keys import key_of


@pytest.mark.usefixtures("home")
def test_a_small_folder_is_cross_validated_and_says_what_limits_its_numbers(
    make_video: Callable[..., Path],
    tmp_path: Path,
    tiny_encoder_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(24):
        path = tmp_path / "clips" / "ab"[number % 2] / f"s{number // 4}_{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_video(path, seconds=1.0, seed=number)
    twin = tmp_path / "clips/b/s0_twin.mp4"
    shutil.copy(tmp_path / "clips/a/s0_0.mp4", twin)
    folder = Selection(dataset=f"folder:{tmp_path / 'clips'}", group=r"^s\d")
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=1, stride=1)
    heads = TrainOptions(heads=("svm", "knn"), cv_repeats=1)
    summary = pipeline(folder, CollectOptions(), options, training=heads)
    found = summary.trained.cross_validated
    assert [one.head for one in found] == ["svm", "knn"]
    assert {(one.folds, one.videos, one.groups) for one in found} == {(5, 25, 6)}
    assert summary.collected.contradictions == ({"a/s0_0": "a", "b/s0_twin": "b"},)
    artifact = Artifact.get(key_of("heads", "clips", "task"))
    assert "## Cross-validation" in str(artifact.data)

    print_heads(summary.trained)
    said = " ".join(capsys.readouterr().out.split())
    assert said.index("cross-validated accuracy") < said.index("test accuracy")
    assert "25 videos in 6 independent groups" in said
    assert "'a/s0_0' (a) = 'b/s0_twin' (b)" in said
    assert "too few for intervals" in said
    # Those of the cross-validations, which are made after the heads, are counted too.
    assert "evaluations on this test set so far, or on a part of it: svm 4, knn 4" in said

    # Nothing has changed: the folds are not computed again. And they can be left out.
    again = train(folder, options, heads)
    assert all(one.reused for one in again.cross_validated)
    assert train(folder, options, heads.model_copy(update={"cv": 0})).cross_validated == ()
