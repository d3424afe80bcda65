"""Tasks, domains and steps, from annotated extents to registered models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coinml.collection.options import CollectOptions
from coinml.embedding.options import EmbedOptions
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.ledger import Ledger
from coinml.miniature.host import FlakyHost
from coinml.registry.predict import predict_files
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.compare_runs import compare_runs
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.options import TrainOptions
from flows.collect import collect
from flows.embed import embed
from flows.pipeline import pipeline
from flows.reprocess import reprocess
from flows.train import train

Coin = tuple[Path, list[str]]


def of_set(summary: object) -> EmbeddingSet:
    return EmbeddingSet.open(Settings().embeddings_root, "toy", fingerprint=summary.fingerprint)


def test_steps_and_domains_have_models_of_their_own(
    home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path
) -> None:
    folder, ids = coin
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=2, stride=1)
    with FlakyHost(folder / "videos", {"videos": {ids[1]: ["404"]}}) as host:
        source, training = CollectOptions(source=host.source), TrainOptions(target="step")
        steps = pipeline(selection, source, options, training=training)
        again = reprocess(selection, source, options, training=training, min_new=1)
    domains = pipeline(
        selection,
        CollectOptions(source=host.source, budget=1),
        options,
        training=TrainOptions(target="domain"),
    )
    store = MlflowStore(uri=Settings().tracking_uri, artifact_root=Settings().artifact_root)

    assert (steps.embedded.videos, steps.embedded.segments) == (23, 46)
    assert {report.model for report in steps.trained.heads} == {"toy-step"}
    # Nothing has changed: the heads were trained on all videos of the set.
    assert (again.embedded.embedded, again.grown, again.trained) == (0, 0, None)
    mlp, svm = steps.trained.heads
    run = store.read_run(svm.run_id)
    official = sum(
        entry["subset"] == "testing"
        for entry in json.loads((folder / "COIN.json").read_text())["database"].values()
    )
    assert run.data.tags["target"] == "step"
    assert (run.data.params["test_videos"], run.data.params["test_segments"]) == (
        str(official),
        str(2 * official),
    )
    predictions = store.read_table(svm.run_id, "predictions")
    assert predictions["video_id"].is_unique
    assert set(predictions["video_id"]) == {f"{i}#{n}" for i in ids if i != ids[1] for n in (1, 2)}
    assert (predictions.groupby("of_video")["split"].nunique() == 1).all()
    assert set(predictions["label"]) == {"heat the pan (1)", "put it in (2)", "put it in (3)"}
    assert steps.trained.comparison is not None
    assert steps.trained.comparison.result.n == 2 * official
    counts = store.read_table(mlp.run_id, "class_counts")
    assert counts["train_videos"].sum() == 2 * int(run.data.params["train_videos"])
    assert mlp.scarce_classes == tuple(counts["class"][counts["train_videos"] < 5])

    # Different seconds of a file are different inputs.
    file = str(Settings().videos_dir("toy") / f"{ids[2]}.mp4")
    uri = f"models:/toy-step/{svm.version}"
    answers = [predict_files(store, uri, [file], span=span)[0] for span in ((0.1, 0.4), (0.5, 0.9))]
    assert [answer["error"] for answer in answers] == [None, None]
    assert answers[0]["top5"] != answers[1]["top5"]
    (beyond,) = predict_files(store, uri, [file], span=(5.0, 6.0))
    assert "no frame lies between 5.0 and 6.0 s" in beyond["error"]

    assert {report.model for report in domains.trained.heads} == {"toy-domain"}
    assert domains.embedded.fingerprint != steps.embedded.fingerprint
    assert domains.embedded.segments is None
    found = store.read_table(domains.trained.heads[0].run_id, "predictions")
    assert set(found["label"]) == {"Eggs", "Meat"}
    with pytest.raises(InvalidInputError, match=r"tells steps apart and run .* domains"):
        compare_runs(store, svm.run_id, domains.trained.heads[0].run_id)


def test_a_segment_behind_the_end_of_its_file_is_reported_and_the_others_are_embedded(
    home: Path, coin: Coin, selection: Selection, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    folder, ids = coin
    content = json.loads((folder / "COIN.json").read_text())
    content["database"][ids[3]]["annotation"].append(
        {"id": "3", "segment": [7.0, 9.0], "label": "put it in"}
    )
    content["database"][ids[4]]["annotation"] = []
    (tmp_path / "COIN.json").write_text(json.dumps(content))
    selection = Selection(dataset=str(tmp_path / "COIN.json"), name="toy")
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=1, extent="segments")
    with FlakyHost(folder / "videos") as host:
        collect(selection, CollectOptions(source=host.source))
    summary = embed(selection, options, EmbedOptions(shard_size=10))
    assert (summary.videos, summary.segments, summary.embedded) == (23, 46, 46)
    assert list(summary.failed) == [ids[3]]
    assert "no frame lies between 7.0 and 9.0 s" in summary.failed[ids[3]]
    assert summary.without_extent == 1
    assert "segments of 1 videos cannot be embedded" in str(summary)
    with Ledger(Settings().ledger_url) as ledger:
        assert ledger.status("toy").downloaded == 24
    assert embed(selection, options).embedded == 0

    annotated = embed(selection, options.model_copy(update={"extent": "annotated"}))
    assert (annotated.videos, annotated.segments, annotated.failed) == (23, None, {})
    spans = of_set(annotated).videos().set_index("video_id")[["start_s", "end_s"]]
    assert spans.loc[ids[5]].tolist() == [0.1, 0.9]
    # Of a longer extent, the part that the file has is embedded.
    assert spans.loc[ids[3]].tolist() == [0.1, 9.0]


def test_missing_annotations_are_reported_before_anything_is_collected(
    home: Path, coin: Coin, tmp_path: Path, tiny_encoder_dir: Path
) -> None:
    for number, name in enumerate(sorted(p.name for p in (coin[0] / "videos").iterdir())):
        target = tmp_path / "clips" / "ab"[number % 2] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((coin[0] / "videos" / name).read_bytes())
    folder = Selection(dataset=f"folder:{tmp_path / 'clips'}")
    options = SetOptions(encoder=str(tiny_encoder_dir))
    with pytest.raises(InvalidInputError, match="target step: none"):
        pipeline(folder, set_options=options, training=TrainOptions(target="step"))
    with pytest.raises(InvalidInputError, match="target domain: no domain"):
        train(folder, options, TrainOptions(target="domain"))
    with pytest.raises(InvalidInputError, match="extent annotated: none of these 24 videos"):
        embed(folder, options.model_copy(update={"extent": "annotated"}))
    with pytest.raises(InvalidInputError, match="contradict"):
        pipeline(
            folder,
            set_options=options.model_copy(update={"extent": "video"}),
            training=TrainOptions(target="step"),
        )
    # Nothing was collected.
    with Ledger(Settings().ledger_url) as ledger:
        assert ledger.datasets() == []
