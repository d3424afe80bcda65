"""A collected dataset of short videos, and the pre-training of a small encoder on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coinml.data.records import Dataset, Split, Video
from coinml.encoder.checkpoint import find_checkpoint
from coinml.ledger import FileFacts, Ledger
from coinml.pretraining.options import PretrainOptions
from coinml.pretraining.pretrain import pretrain
from coinml.pretraining.pretrain_report import PretrainReport

SPLITS: tuple[Split, ...] = ("train", "val", "train", "test", "train", "train", "train")


def dataset() -> Dataset:
    return Dataset(
        name="kitchen",
        videos=tuple(
            Video(
                video_id=f"video{number:06d}",
                label="Cut" if number % 2 else "Boil",
                subset="testing" if split == "test" else "training",
                split=split,
            )
            for number, split in enumerate(SPLITS)
        ),
    )


def collect(folder: Path, make_video: Callable[..., Path]) -> str:
    """Write the videos of the dataset and record them; returns the URL of the ledger."""
    url = f"sqlite:///{folder / 'ledger.db'}"
    with Ledger(url) as ledger:
        ledger.register(dataset())
        for number, video in enumerate(dataset().videos):
            path = make_video(
                folder / f"{video.video_id}.mp4", seconds=0.6 + number / 10, fps=12, seed=number
            )
            content = path.read_bytes()
            facts = FileFacts(
                path=str(path),
                size_bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
            )
            ledger.record_success("kitchen", video.video_id, file=facts, attempt=None)
    return url


def options(**values: Any) -> PretrainOptions:
    """Options of a short training."""
    given = {
        "steps": 8,
        "batch_clips": 4,
        "crops": 2,
        "stride": 1,
        "lr": 1e-3,
        "mask_ratio": 0.75,
        "checkpoint_steps": 3,
        **values,
    }
    return PretrainOptions(**given)


def train(url: str, encoder: Path, out: Path, **values: Any) -> PretrainReport:
    """Pre-train the encoder on the collected videos; `values` are options or arguments."""
    arguments = {name: values.pop(name) for name in ("store", "on_step") if name in values}
    with Ledger(url) as ledger:
        return pretrain(
            dataset(),
            ledger,
            options(**values),
            parent=find_checkpoint(encoder),
            out=out,
            device="cpu",
            workers=1,
            **arguments,
        )
