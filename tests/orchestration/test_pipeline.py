"""Embed, train, promote and the whole pipeline, with a tiny real VideoMAE."""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.settings import PREFECT_UI_URL, temporary_settings
from pydantic import ValidationError

from coinml.collection.options import CollectOptions
from coinml.embedding.options import EmbedOptions
from coinml.embedding_sets import list_sets
from coinml.embedding_sets.options import SetOptions
from coinml.errors import InvalidInputError
from coinml.ledger import Ledger
from coinml.miniature.host import FlakyHost
from coinml.monitoring.options import ScoreOptions
from coinml.registry.versions import CHALLENGER, CHAMPION, list_versions, point_alias
from coinml.runtime.settings import Settings
from coinml.selection import Selection
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.options import TrainOptions
from coinml_cli.status import extras_of
from flows.embed import embed
from flows.pipeline import pipeline
from flows.score import score
from flows.train import train

Coin = tuple[Path, list[str]]
PAGES = "http://prefect.example:4200"


def test_only_videos_that_are_not_in_the_set_are_embedded(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    options = SetOptions(encoder=str(tiny_encoder_dir), clips=2), EmbedOptions(shard_size=10)
    first = embed(collected, *options)
    assert (first.videos, first.embedded, first.failed) == (24, 24, {})
    assert first.bottleneck in ("decode", "encode", "write")
    again = embed(collected, *options)
    assert (again.fingerprint, again.videos, again.embedded) == (first.fingerprint, 24, 0)
    other = embed(collected, SetOptions(encoder=str(tiny_encoder_dir), clips=1))
    assert other.fingerprint != first.fingerprint
    assert len(list_sets(Settings().embeddings_root, "toy")) == 2


def test_a_file_that_was_damaged_since_is_quarantined_and_the_others_are_embedded(
    collected: Selection, tiny_encoder_dir: Path, coin: Coin
) -> None:
    broken = Settings().videos_dir("toy") / f"{coin[1][5]}.mp4"
    broken.write_bytes(broken.read_bytes()[:300])
    summary = embed(collected, SetOptions(encoder=str(tiny_encoder_dir), clips=2))
    assert list(summary.failed) == [coin[1][5]]
    assert summary.embedded == 23
    with Ledger(Settings().ledger_url) as ledger:
        assert ledger.row("toy", coin[1][5]).state == "corrupt"
    assert not broken.exists()


def test_the_pipeline_registers_heads_and_a_second_run_repeats_nothing(
    home: Path,
    coin: Coin,
    selection: Selection,
    tiny_encoder_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {"set_options": SetOptions(encoder=str(tiny_encoder_dir), clips=2)}
    caplog.set_level(logging.INFO, "tasks")
    monkeypatch.setenv("PREFECT_UI_URL", PAGES)
    with FlakyHost(coin[0] / "videos", {"videos": {coin[1][4]: ["410"]}}) as host:
        with temporary_settings({PREFECT_UI_URL: PAGES}):
            summary = pipeline(selection, CollectOptions(source=host.source), **options)
        lines = [record.message for record in caplog.records if record.levelno == logging.INFO]
        again = pipeline(selection, CollectOptions(source=host.source), **options)
    assert summary.complete
    assert summary.collected.faults == {"gone": 1}
    assert [report.head for report in summary.trained.heads] == ["mlp", "svm"]
    # In this order, although both are trained at the same time.
    assert [report.version for report in summary.trained.heads] == [1, 2]
    assert not any(report.reused for report in summary.trained.heads)
    assert len(summary.verdicts) == 2
    assert all(verdict.reason for verdict in summary.verdicts)
    settings = Settings()
    store = MlflowStore(uri=settings.tracking_uri, artifact_root=settings.artifact_root)
    versions = list_versions(store, "toy-task")
    assert {row["version"] for row in versions} == {1, 2}
    assert any(CHALLENGER in row["aliases"] for row in versions)
    assert (home / "mlflow.db").is_file()
    assert (home / "mlartifacts" / "toy-task").is_dir()
    assert all(report.reused for report in again.trained.heads)
    assert again.embedded.embedded == again.collected.asked == 0
    # A line for each stage with its result and duration, and the pages of the results.
    stages = [line for line in lines if re.search(r"; \d+\.\d (s|min)$", line)]
    assert [line.partition(":")[0] for line in stages] == ["collect", "embed", "train", "promote"]
    assert stages[0].startswith("collect: 23 of 24 videos are downloaded, 23 of them new; 1 gone; ")
    assert stages[1].startswith("embed: 23 videos in set")
    assert stages[2].startswith("train: mlp ")
    keys = ("attrition-toy", "comparison-toy-task", "heads-toy-task", "champion-toy-task")
    for key in keys:
        # In the run that has published it, and in the pipeline's.
        assert lines.count(f"{key}: {PAGES}/artifacts/key/{key}") == 2
    assert summary.trained.comparison is not None
    assert summary.trained.comparison.result.n == sum(
        row.subset == "testing" and row.state == "downloaded"
        for row in Ledger.shared(settings.ledger_url).rows("toy")
    )
    # Scoring joins this test, since it needs heads: without a champion it does nothing.
    client = store.client()
    client.delete_registered_model_alias("toy-task", CHAMPION)
    assert score(selection) is None
    point_alias(client, "toy-task", CHAMPION, "2")
    folder = settings.data_dir / "incoming" / "toy"
    folder.mkdir(parents=True)
    for video_id in coin[1][:20]:
        shutil.copyfile(coin[0] / "videos" / f"{video_id}.mp4", folder / f"new{video_id}.mp4")
    (folder / "broken.mp4").write_bytes(b"no video")
    options = ScoreOptions(settle_s=0, window=20)
    report = score(selection, options)
    assert (report.version, report.scored.scored, len(report.scored.failed)) == (2, 20, 1)
    assert len(report.windows) == 1
    assert score(selection, options).scored.scored == 0
    with get_client(sync_client=True) as prefect:
        wanted = ArtifactFilter(key=ArtifactFilterKey(any_=["score-toy-task"]))
        first, _ = prefect.read_artifacts(artifact_filter=wanted, limit=2)
    assert "| 1 to 20 |" in str(first.data)
    assert extras_of(settings, "toy")["scores"][0]["classified"] == 20


def test_an_mlflow_run_links_to_its_flow_run(
    collected: Selection, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"set_options": SetOptions(encoder=str(tiny_encoder_dir), clips=2)}
    embed(collected, **options)
    monkeypatch.setenv("PREFECT_UI_URL", "http://prefect.example:4200")
    with temporary_settings({PREFECT_UI_URL: "http://prefect.example:4200"}):
        (report,) = train(collected, training=TrainOptions(heads=("svm",)), **options).heads
    run = mlflow.MlflowClient(Settings().tracking_uri).get_run(report.run_id)
    flow_run = run.data.tags["prefect_flow_run_id"]
    assert len(flow_run) == 36
    page = f"http://prefect.example:4200/runs/flow-run/{flow_run}"
    assert run.data.tags["prefect_flow_run_page"] == page
    assert f"]({page})" in run.data.tags["mlflow.note.content"]


def test_a_sweep_precedes_the_training_and_the_run_names_it(
    collected: Selection, tiny_encoder_dir: Path
) -> None:
    options = {"set_options": SetOptions(encoder=str(tiny_encoder_dir), clips=2)}
    embed(collected, **options)
    sweep = TrainOptions(heads=("knn", "attentive"), sweep=2)
    reports = train(collected, training=sweep, **options).heads
    client = mlflow.MlflowClient(Settings().tracking_uri)
    assert [report.head for report in reports] == ["knn", "attentive"]
    for report in reports:
        parent = client.get_run(client.get_run(report.run_id).data.tags["tuned_by"])
        assert parent.data.tags["sweep_head"] == report.head
        assert parent.data.metrics["val/accuracy"] == report.metrics["val_accuracy"]
    # Only the two heads were evaluated on the test videos, no trial was.
    assert sorted(report.metrics["test_looks"] for report in reports) == [2, 2]
    assert (Settings().data_dir / "sweeps.db").is_file()


def test_training_on_an_empty_set_is_refused(
    home: Path, selection: Selection, tiny_encoder_dir: Path
) -> None:
    with pytest.raises(InvalidInputError, match="collect and embed first"):
        train(selection, SetOptions(encoder=str(tiny_encoder_dir)), TrainOptions(heads=("svm",)))
    assert not list(home.rglob("spec.json"))
    shutil.rmtree(home)


def test_embedding_what_was_never_collected_is_refused_and_leaves_no_set(
    home: Path, selection: Selection, tiny_encoder_dir: Path
) -> None:
    with pytest.raises(InvalidInputError, match="none of its 24 videos is collected"):
        embed(selection, SetOptions(encoder=str(tiny_encoder_dir)))
    assert not list(home.rglob("spec.json"))
    shutil.rmtree(home)


def test_an_unknown_head_is_refused_with_a_list_of_heads() -> None:
    with pytest.raises(ValidationError, match="forest: allowed are mlp, svm, attentive"):
        TrainOptions(heads=("forest",))
