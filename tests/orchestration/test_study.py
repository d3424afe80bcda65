"""The flow `study`: it embeds the missing sets, publishes results and registers nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from pydantic import ValidationError

from coinml.collection.options import CollectOptions
from coinml.embedding_sets import list_sets
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.quantized_file import quantized_file
from coinml.encoder.int8_model import description_of
from coinml.errors import InvalidInputError
from coinml.miniature.host import FlakyHost
from coinml.registry.versions import list_versions
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.studies.options import StudyOptions
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.options import TrainOptions
from flows.collect import collect
from flows.study import study
from flows.train import train

Coin = tuple[Path, list[str]]


@pytest.fixture
def collected(home: Path, coin: Coin, selection: Selection) -> Selection:
    with FlakyHost(coin[0] / "videos") as host:
        collect(selection, CollectOptions(source=host.source))
    return selection


def store() -> MlflowStore:
    settings = Settings()
    return MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)


def artifact(key: str) -> str:
    with get_client(sync_client=True) as client:
        (latest, *_) = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
        )
    return str(latest.data)


def test_a_study_of_sets_embeds_each_and_measures_the_cost(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    made = SetOptions(encoder=str(tiny_encoder_dir), clips=2)
    report = study("clips", collected, made, options=StudyOptions(conditions=("1",), timed=3))
    assert [row.condition.name for row in report.rows] == ["1", "2"]
    assert [row.cost.clips for row in report.rows if row.cost] == [3, 6]
    assert report.conclusions[0] in artifact("study-clips-toy")
    root = Settings().embeddings_root
    assert len(list_sets(root, "toy")) == 2
    runs = store().find_runs(report.experiment, {"study": "clips"})
    assert len(runs) == 3
    assert list_versions(store()) == []
    # The sets exist: nothing is embedded a second time.
    parts = {one.path: one.parts() for one in list_sets(root, "toy")}
    again = study("clips", collected, made, options=StudyOptions(conditions=("1",), timed=0))
    assert {one.path: one.parts() for one in list_sets(root, "toy")} == parts
    assert [row.test for row in again.rows] == [row.test for row in report.rows]


def test_resolution_embeds_the_test_videos_again_and_keeps_no_file(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    made = SetOptions(encoder=str(tiny_encoder_dir), clips=1)
    options = StudyOptions(conditions=("16", "48"))
    report = study("resolution", collected, made, options=options)
    assert [row.condition.name for row in report.rows] == ["16p", "48p", "original"]
    assert report.test_videos == 8
    assert "8 of 8 test videos are no higher than 48 pixels" in report.notes[0]
    (smaller,) = list_sets(Settings().embeddings_root, "toy@16p")
    assert len(smaller.done()) == 8
    assert list((Settings().data_dir / "studies").iterdir()) == []
    parts = smaller.parts()
    study("resolution", collected, made, options=options)
    assert smaller.parts() == parts


def test_data_predicts_for_the_official_training_side(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    part = collected.model_copy(update={"limit": 22})
    report = study(
        "data",
        part,
        SetOptions(encoder=str(tiny_encoder_dir), clips=1),
        options=StudyOptions(conditions=("30", "50", "75"), seeds=2, at=1000),
    )
    assert {row.condition.name for row in report.rows} == {"30 %", "50 %", "75 %", "100 %"}
    assert [p.train_videos for p in report.predictions] in ([16, 1000], [])
    assert report.predictions or "No learning curve is fitted" in report.notes[0]


def test_an_unknown_study_or_head_is_refused_first(home: Path, selection: Selection) -> None:
    with pytest.raises(InvalidInputError, match="study 'colour': one of snap"):
        study("colour", selection)
    with pytest.raises(ValidationError, match="forest: allowed are mlp"):
        StudyOptions(heads=("forest",))


def test_precision_quantizes_on_training_videos_and_measures_what_it_saves(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    made = SetOptions(encoder=str(tiny_encoder_dir), clips=2)
    report = study("precision", collected, made, options=StudyOptions(timed=3))
    assert [row.condition.name for row in report.rows] == ["float", "int8"]
    assert all(row.cost is not None and row.cost.encode_cpu_s_a_clip.low > 0 for row in report.rows)
    (conclusion,) = report.conclusions
    assert conclusion.startswith("Int8 in place of float precision ")
    assert "CPU s of encoding a clip" in conclusion
    quantized = [
        one
        for one in list_sets(Settings().embeddings_root, "toy")
        if one.spec.encoder.precision == "int8"
    ]
    assert len(quantized) == 1
    path = quantized_file(quantized[0])
    assert path is not None
    clips = description_of(path)["clips"]
    splits = {video.video_id: video.split for video in collected.load(Settings().data_dir).videos}
    assert clips
    assert {splits[clip["video_id"]] for clip in clips} == {"train"}
    # Training finds the set by its options, which do not name the clips.
    int8 = made.model_copy(update={"precision": "int8"})
    summary = train(collected, int8, TrainOptions(heads=("mlp",)))
    (head,) = summary.heads
    run = store().client().get_run(head.run_id)
    assert run.data.tags["set_fingerprint"] == quantized[0].spec.fingerprint
