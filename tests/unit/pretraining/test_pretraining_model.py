"""The loss is that of transformers, and so are its gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEModel

from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from coinml.errors import InvalidInputError
from coinml.pretraining.masking import Masking, MaskKind
from coinml.pretraining.model import MaskedAutoencoder, load_model
from tests.helpers.small_models import VIDEOMAE

DECODER: dict[str, Any] = {
    "decoder_hidden_size": 48,
    "decoder_intermediate_size": 64,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
}
GRID = (8, 4, 4)


def inputs(kind: MaskKind) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 16, 3, 32, 32), dtype=np.uint8)
    masking = Masking(kind=kind, ratio=0.75, grid=GRID)
    masks = np.stack([masking.draw(rng) for _ in range(3)])
    return torch.from_numpy(images), torch.from_numpy(masks)


@pytest.mark.parametrize("kind", ["tube", "random", "frame"])
@pytest.mark.parametrize("mean_pooling", [True, False])
def test_loss_and_gradients_are_those_of_transformers(kind: MaskKind, mean_pooling: bool) -> None:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        patch_size=8, tubelet_size=2, use_mean_pooling=mean_pooling, **VIDEOMAE, **DECODER
    )
    model = VideoMAEForPreTraining(config).train()
    images, masks = inputs(kind)
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    wanted = model((images / 255 - mean) / std, bool_masked_pos=masks).loss
    found = MaskedAutoencoder(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)(images, masks)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    weights = list(model.parameters())
    for ours, theirs in zip(
        torch.autograd.grad(found, weights), torch.autograd.grad(wanted, weights), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_only_visible_tokens_reach_the_encoder() -> None:
    model = VideoMAEForPreTraining(
        VideoMAEConfig(patch_size=8, tubelet_size=2, **VIDEOMAE, **DECODER)
    )
    seen: list[int] = []
    model.videomae.encoder.register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0].shape[1])
    )
    images, masks = inputs("tube")
    MaskedAutoencoder(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)(images, masks)
    assert seen == [8 * 4]


def test_visible_patches_are_shown_as_they_are() -> None:
    model = VideoMAEForPreTraining(
        VideoMAEConfig(patch_size=8, tubelet_size=2, **VIDEOMAE, **DECODER)
    )
    images, masks = inputs("tube")
    autoencoder = MaskedAutoencoder(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    masked, rebuilt = autoencoder.rebuild(images, masks)
    hidden = masks.view(3, *GRID).repeat_interleave(2, 1)
    hidden = hidden.repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, None].expand_as(images)
    assert (masked[hidden] == 128).all()
    for shown in (masked, rebuilt):
        assert torch.equal(shown[~hidden], images[~hidden])
    assert (rebuilt[hidden] != 128).float().mean() > 0.9


def test_a_checkpoint_of_an_encoder_gets_a_random_decoder(tiny_encoder_dir: Path) -> None:
    checkpoint = find_checkpoint(tiny_encoder_dir)
    first, again = (load_model(checkpoint, from_scratch=False, seed=1) for _ in range(2))
    theirs = VideoMAEModel.from_pretrained(tiny_encoder_dir).state_dict()
    assert theirs
    for name, weight in theirs.items():
        assert torch.equal(first.videomae.state_dict()[name], weight)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    scratch = load_model(checkpoint, from_scratch=True, seed=1)
    name = next(name for name in theirs if name.endswith("query.weight"))
    name = f"videomae.{name}"
    assert not torch.equal(scratch.state_dict()[name], first.state_dict()[name])


def test_another_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "timesformer"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="is a timesformer; only a videomae"):
        load_model(find_checkpoint(tmp_path), from_scratch=False, seed=0)
