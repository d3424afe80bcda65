"""How parts of an embedding set are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from coinml.embedding.part_writer import PartWriter
from coinml.embedding_sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.clip_encoder import load_encoder


def test_parquet_is_imported_before_the_first_video(
    tmp_path: Path, tiny_encoder_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(tiny_encoder_dir, device="cpu")
    spec = SetSpec(encoder=encoder.spec, dataset="toy")
    made = EmbeddingSet.open(str(tmp_path), "toy", spec, create=True)
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with PartWriter(made, part_videos=1):
        assert "pyarrow.parquet" in sys.modules
