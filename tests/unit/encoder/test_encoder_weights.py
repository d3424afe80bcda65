"""Checkpoints whose weights are split into several files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.clip_encoder import load_encoder
from coinml.errors import InvalidInputError
from tests.helpers.small_models import VIDEOMAE

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classification checkpoint, whose fc_norm is read separately from the model."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(0)
    config = VideoMAEConfig(**VIDEOMAE)
    model = VideoMAEForVideoClassification(config)
    torch.nn.init.normal_(model.fc_norm.weight)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def split(whole: Path, tmp_path: Path) -> Path:
    from transformers import VideoMAEForVideoClassification

    model = VideoMAEForVideoClassification.from_pretrained(whole)
    model.save_pretrained(tmp_path / "split", max_shard_size="60KB")
    assert not (tmp_path / "split" / "model.safetensors").exists()
    return tmp_path / "split"


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def test_vectors_equal_those_of_weights_in_one_file(whole: Path, split: Path) -> None:
    assert len(_shards(split)) > 2
    clips = np.random.default_rng(0).integers(0, 255, (2, 16, 40, 48, 3), dtype=np.uint8)
    encoder = load_encoder(split, device="cpu")
    assert encoder.spec.pooling == "mean+fc_norm"
    np.testing.assert_array_equal(
        encoder.encode(clips), load_encoder(whole, device="cpu").encode(clips)
    )


def test_a_copy_has_all_files_and_the_same_fingerprint(split: Path, tmp_path: Path) -> None:
    encoder = load_encoder(split, device="cpu")
    copy = encoder.copy_to(tmp_path / split.parent.name / split.name)
    assert [file.name for file in _shards(copy)] == [file.name for file in _shards(split)]
    assert find_checkpoint(copy).spec().fingerprint == encoder.spec.fingerprint


def test_every_file_changes_the_fingerprint(split: Path, tmp_path: Path) -> None:
    seen = {find_checkpoint(split).spec().weights_sha256}
    for number, shard in enumerate(_shards(split)):
        copy = Path(shutil.copytree(split, tmp_path / str(number)))
        changed = bytearray(shard.read_bytes())
        changed[-1] ^= 1
        (copy / shard.name).write_bytes(changed)
        seen.add(find_checkpoint(copy).spec().weights_sha256)
    assert len(seen) == 1 + len(_shards(split))


def test_a_missing_file_is_named(split: Path) -> None:
    gone = _shards(split)[1]
    gone.unlink()
    with pytest.raises(InvalidInputError, match=f"lacks {gone.name}, which {INDEX} names"):
        find_checkpoint(split)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not an index"),
        ("[]", "not an index"),
        ("{}", "not an index"),
        (json.dumps({"weight_map": {"a": 3}}), "not an index"),
        (json.dumps({"weight_map": {}}), "names no files in its folder"),
        (json.dumps({"weight_map": {"a": "../model.safetensors"}}), "names no files in its folder"),
    ],
)
def test_an_invalid_index_is_refused(split: Path, content: str, message: str) -> None:
    (split / INDEX).write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        find_checkpoint(split)


def test_a_file_that_is_not_safetensors_is_refused(split: Path) -> None:
    _shards(split)[0].write_bytes(b"x")
    with pytest.raises(InvalidInputError, match=r"model-00001.*: not a safetensors file"):
        find_checkpoint(split).spec()
