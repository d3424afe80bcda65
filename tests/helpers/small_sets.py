"""The spec of a small embedding set, and rows for it."""

from __future__ import annotations

import numpy as np

from coinml.embedding_sets import VideoRows
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.spec import EncoderSpec

DIM = 8
ENCODER = EncoderSpec(
    encoder="tiny",
    architecture="videomae",
    weights_sha256="0" * 64,
    resize=32,
    crop=(32, 32),
    mean=(0.5, 0.5, 0.5),
    std=(0.2, 0.2, 0.2),
    frames=16,
    clips=3,
    dim=DIM,
)
SPEC = SetSpec(encoder=ENCODER, dataset="mini")


def rows(video_id: str, *, sha: str = "aa", value: float = 0.0, clips: int = 3) -> VideoRows:
    base = np.arange(clips * DIM, dtype=np.float32).reshape(clips, DIM) / 16
    return VideoRows(
        video_id=video_id,
        file_sha256=sha,
        timestamps_s=np.arange(clips * 16, dtype=np.float64).reshape(clips, 16) / 25,
        decoder="pyav",
        frames_decoded=16 * clips,
        frames_substituted=0,
        dtype="float32",
        embeddings=base + value,
    )
