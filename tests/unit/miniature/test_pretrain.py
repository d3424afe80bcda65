"""The tiny encoder of the package, and the script that trains it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from coinml.encoder.clip_encoder import load_encoder
from coinml.miniature.pretrain import pretrain
from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT

WEIGHTS = "model.safetensors"


def test_the_tiny_encoder_is_small_loads_and_has_a_model_card() -> None:
    weights = load_file(TINY_CHECKPOINT / WEIGHTS)
    assert sum(tensor.numel() for tensor in weights.values()) <= 2_000_000
    assert (TINY_CHECKPOINT / WEIGHTS).stat().st_size <= 4 * 2**20
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    card = (TINY_CHECKPOINT / "README.md").read_text()
    assert "What it is not" in card
    encoder = load_encoder(str(TINY_CHECKPOINT), device="cpu")
    assert encoder.dim == 128
    assert encoder.spec.frames == 16
    processor = json.loads((TINY_CHECKPOINT / "preprocessor_config.json").read_text())
    assert processor["image_mean"] == [0.485, 0.456, 0.406]


def test_a_resumed_run_gives_the_same_weights(tmp_path: Path) -> None:
    options = {"steps": 3, "batch_size": 2, "device": "cpu"}
    assert pretrain(tmp_path / "stopped", **options, stop_after=2) is None
    assert (tmp_path / "stopped" / "checkpoint.pt").is_file()
    assert not (tmp_path / "stopped" / WEIGHTS).exists()
    resumed = pretrain(tmp_path / "stopped", **options)
    whole = pretrain(tmp_path / "whole", **options)
    assert resumed is not None
    assert resumed == whole
    ours, theirs = (load_file(tmp_path / name / WEIGHTS) for name in ("stopped", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not (tmp_path / "stopped" / "checkpoint.pt").exists()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    pretrain(tmp_path, steps=2, batch_size=2, device="cpu", stop_after=1)
    with pytest.raises(SystemExit, match="continue with those settings or remove it"):
        pretrain(tmp_path, steps=5, batch_size=2, device="cpu")
