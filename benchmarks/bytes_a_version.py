"""Bytes that a run and a registered version take, with a tiny encoder and with VideoMAE-base.

    python benchmarks/bytes_a_version.py --videos 7100

Trains an MLP and an SVM on random vectors of COIN's 180 tasks, by the same functions as `coinml
train`. What a version took before encoders were stored once is what `coinml registry export`
writes: the same files with a copy of the encoder. Fails if a version takes more than a hundredth
of that.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("DO_NOT_TRACK", "true")

import numpy as np
import torch

from coinml.data.records import Dataset, Video
from coinml.embedding_sets import EmbeddingSet, VideoRows
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets.table import build_table
from coinml.encoder.checkpoint import TINY_FOLDER, find_checkpoint
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.registry.export import export_model
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.train_head import train_head
from coinml.training.training_data import TrainingData

CLASSES = 180
SMALLER_PROMISED = 100
"""How many times as much a version with VideoMAE-base took before, at least."""


def main() -> int:
    """Print the table; 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=7100, help="Downloaded videos.")
    options = parser.parse_args()
    torch.manual_seed(0)
    print("| encoder | head | a run | a version now | a version before | an encoder, once |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="coinml-bytes-") as temporary:
        folder = Path(temporary)
        encoders = {"tiny": TINY_FOLDER, "VideoMAE-base": _base(folder / "base")}
        ratios = {
            name: _measure(name, encoder, folder / name, options.videos)
            for name, encoder in encoders.items()
        }
    return ratios["VideoMAE-base"] < SMALLER_PROMISED


def _base(folder: Path) -> Path:
    """VideoMAE-base with random weights: its files have the size of the trained one's."""
    from transformers import VideoMAEConfig, VideoMAEImageProcessorPil, VideoMAEModel

    VideoMAEModel(VideoMAEConfig()).save_pretrained(folder)
    VideoMAEImageProcessorPil().save_pretrained(folder)
    return folder


def _measure(name: str, encoder_dir: Path, folder: Path, videos: int) -> float:
    """Train on vectors of an encoder and print a row a head; how many times smaller, at least."""
    data, checkpoint = _data(encoder_dir, folder, videos), find_checkpoint(encoder_dir)
    home = folder / "home"
    home.mkdir()
    # Not by the settings: MLflow has put the address of the store before into the environment.
    store = MlflowStore(uri=f"sqlite:///{home / 'mlflow.db'}", artifact_root=home / "mlartifacts")
    store.client()
    ratios = []
    for head in ("mlp", "svm"):
        database = (home / "mlflow.db").stat().st_size
        report = train_head(head, data, store=store, checkpoint=checkpoint)
        run = store.read_run(report.run_id)
        rows = (home / "mlflow.db").stat().st_size - database
        files = _size(Path(run.info.artifact_uri.removeprefix("file://")))
        version = _size(_model_folder(store, report.model, report.version))
        exported = folder / f"{head}-exported"
        before = export_model(store, f"models:/{report.model}/{report.version}", exported)
        once = _size(store.artifact_root / "coinml-encoders")
        ratios.append(before / version)
        sizes = (files + rows, version, before, once)
        print(f"| {name} | {head} | " + " | ".join(f"{s / 1e6:,.2f} MB" for s in sizes) + " |")
    return min(ratios)


def _data(encoder_dir: Path, folder: Path, n_videos: int) -> TrainingData:
    encoder = load_encoder(encoder_dir, device="cpu", sampling=Sampling(clips=1))
    spec = SetSpec(encoder=encoder.spec, dataset="coin")
    rng = np.random.default_rng(0)
    splits = rng.choice(["train", "val", "test"], n_videos, p=[0.6, 0.15, 0.25])
    centres = rng.normal(size=(CLASSES, spec.encoder.dim)).astype(np.float32)
    videos, rows = [], []
    for number, split in enumerate(splits):
        one, label = f"video{number:06d}", number % CLASSES
        subset = "testing" if split == "test" else "training"
        videos.append(
            Video(video_id=one, label=f"Task{label:03d}", subset=subset, split=str(split))
        )
        vector = centres[label] + rng.normal(scale=3, size=(1, spec.encoder.dim))
        rows.append(
            VideoRows(
                video_id=one,
                file_sha256=f"{number:064d}",
                timestamps_s=np.zeros((1, spec.encoder.frames)),
                decoder="pyav",
                frames_decoded=spec.encoder.frames,
                frames_substituted=0,
                dtype="float32",
                embeddings=vector.astype(np.float32),
            )
        )
    dataset = Dataset(name="coin", videos=tuple(videos))
    embeddings = EmbeddingSet.open(str(folder / "sets"), dataset.name, spec, create=True)
    embeddings.append(rows)
    return TrainingData(
        dataset=dataset,
        table=build_table(dataset.videos, embeddings.videos()),
        spec=spec,
        clips=None,
        sha256s={},
        ledger_digest="0" * 12,
    )


def _model_folder(store: MlflowStore, model: str, version: int) -> Path:
    client = store.client()
    found = client.get_model_version(model, str(version))
    logged = client.get_logged_model(str(found.source).removeprefix("models:/"))
    return Path(logged.artifact_location.removeprefix("file://"))


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
