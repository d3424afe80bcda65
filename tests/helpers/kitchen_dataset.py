"""A dataset of three classes of synthetic videos with embeddings, and heads trained on it.

The classes differ by colour, which even the embeddings of random weights separate.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coinml.data.records import Dataset, Video
from coinml.embedding.engine import embed
from coinml.embedding.jobs import EmbedJob
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets.table import build_table, clips_by_video
from coinml.encoder.checkpoint import Checkpoint, find_checkpoint
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.heads.kinds import head_kind
from coinml.media import write_video
from coinml.registry.promotion import promote
from coinml.tracking.mlflow_store import MlflowStore
from coinml.training.run_context import RunContext
from coinml.training.sweep_runs import TuneReport, tune_head
from coinml.training.train_head import train_head
from coinml.training.train_report import TrainReport
from coinml.training.training_data import TrainingData

MODEL = "kitchen-task"


@dataclass(frozen=True, kw_only=True)
class EmbeddedDataset:
    """A dataset of synthetic videos with its embeddings, as training expects it."""

    dataset: Dataset
    videos: dict[str, Path]
    checkpoint: Checkpoint
    spec: SetSpec
    table: pd.DataFrame
    clips: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Both heads trained on the dataset; the encoder's folder is deleted afterwards."""

    material: EmbeddedDataset
    home: Path
    store: MlflowStore
    reports: dict[str, TrainReport]


def make_embedded_dataset(folder: Path, encoder_dir: Path) -> EmbeddedDataset:
    """Draw and embed nine videos of each class.

    Two more videos have no embedding: a lost one of test and a pending one of train.
    """
    splits = ("train",) * 5 + ("val",) * 2 + ("test",) * 2
    videos, files, jobs = [], {}, []
    for channel, label in enumerate(("Boil", "Cut", "Fry")):
        for number, split in enumerate(splits):
            video_id = f"{label}{number}".ljust(11, "_")
            rng = np.random.default_rng(100 * channel + number)
            frames = rng.integers(0, 60, (24, 48, 64, 3), dtype=np.uint8)
            frames[..., channel] += 180
            path = folder / f"{video_id}.mp4"
            write_video(path, iter(frames), fps=12)
            files[video_id] = path
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            jobs.append(EmbedJob(video_id=video_id, path=str(path), file_sha256=sha256))
            subset = "testing" if split == "test" else "training"
            videos.append(Video(video_id=video_id, label=label, subset=subset, split=split))
    videos.append(Video(video_id="lost_______", label="Cut", subset="testing", split="test"))
    videos.append(Video(video_id="waiting____", label="Cut", subset="training", split="train"))
    dataset = Dataset(name="kitchen", videos=tuple(videos))
    encoder = load_encoder(encoder_dir, device="cpu", sampling=Sampling(clips=2, stride=1))
    spec = SetSpec(encoder=encoder.spec, dataset=dataset.name)
    embeddings = EmbeddingSet.open(str(folder / "sets"), dataset.name, spec, create=True)
    report = embed(jobs, encoder, embeddings, workers=1)
    assert report.embedded == len(jobs)
    table = build_table(dataset.videos, embeddings.videos())
    clips = clips_by_video(embeddings.clips())
    shutil.rmtree(folder / "sets")
    return EmbeddedDataset(
        dataset=dataset,
        videos=files,
        checkpoint=find_checkpoint(encoder_dir),
        spec=spec,
        table=table,
        clips=clips,
    )


def train_both(home: Path, store: MlflowStore, material: EmbeddedDataset) -> Trained:
    """Train both heads with a copy of the encoder, promote the better one, delete the copy."""
    encoder = home / "encoder"
    shutil.copytree(material.checkpoint.folder, encoder)
    checkpoint = find_checkpoint(encoder)
    reports = {head: train(head, store, material, checkpoint=checkpoint) for head in ("mlp", "svm")}
    promote(store, MODEL, [report.version for report in reports.values()])
    shutil.rmtree(encoder)
    return Trained(material=material, home=home, store=store, reports=reports)


def training_data(
    head: str,
    material: EmbeddedDataset,
    *,
    table: pd.DataFrame | None = None,
    sha256s: Mapping[str, str] | None = None,
) -> TrainingData:
    """The material, or another table of the same videos, for one head."""
    return TrainingData(
        dataset=material.dataset,
        table=material.table if table is None else table,
        spec=material.spec,
        clips=material.clips if head_kind(head).takes_clips else None,
        sha256s=sha256s or {},
        ledger_digest="0123456789ab",
    )


def train(
    head: str,
    store: MlflowStore,
    material: EmbeddedDataset,
    *,
    table: pd.DataFrame | None = None,
    checkpoint: Checkpoint | None = None,
    sha256s: Mapping[str, str] | None = None,
    drop_leaks: bool = False,
    seed: int = 0,
    options: dict[str, object] | None = None,
    fits_folder: Path | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> TrainReport:
    """Train one head on the dataset, or on another table of the same videos."""
    return train_head(
        head,
        training_data(head, material, table=table, sha256s=sha256s),
        store=store,
        checkpoint=checkpoint or material.checkpoint,
        drop_leaks=drop_leaks,
        seed=seed,
        options=options,
        context=RunContext(fits_folder=fits_folder, on_step=on_step),
    )


def tune(
    head: str,
    store: MlflowStore,
    material: EmbeddedDataset,
    *,
    trials: int,
    storage: Path,
    table: pd.DataFrame | None = None,
    fixed: Mapping[str, Any] | None = None,
    on_trial: Callable[[int], None] | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> TuneReport:
    """Sweep over a head's options on the material, or on another table of the same videos."""
    return tune_head(
        head,
        training_data(head, material, table=table),
        trials=trials,
        store=store,
        storage=storage,
        fixed=fixed,
        context=RunContext(on_step=on_step),
        on_trial=on_trial,
    )
