"""A VideoMAE checkpoint in the layout of the published ones, against an independent forward.

Published checkpoints have `q_bias` and `v_bias` beside the attention's matrices and no key bias.
Releases of transformers from 5.6 to 5.17 load such a file with biases of zero.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from coinml.encoder.clip_encoder import load_encoder
from coinml.errors import InvalidInputError

WIDTH, HEADS, LAYERS, INNER = 32, 2, 2, 48
SIDE, FRAMES, PATCH, TUBELET = 32, 4, 16, 2
CONFIG = {
    "architectures": ["VideoMAEForPreTraining"],
    "hidden_size": WIDTH,
    "image_size": SIDE,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
    "model_type": "videomae",
    "num_attention_heads": HEADS,
    "num_frames": FRAMES,
    "num_hidden_layers": LAYERS,
    "patch_size": PATCH,
    "qkv_bias": True,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "tubelet_size": TUBELET,
    "use_mean_pooling": False,
}
Arrays = dict[str, NDArray[np.float64]]


def original_weights(*, key_bias: bool = False) -> Arrays:
    """Random weights under the names of the published checkpoints of `VideoMAEForPreTraining`."""
    rng = np.random.default_rng(0)

    def random(*shape: int, around: float = 0.0) -> NDArray[np.float64]:
        return around + rng.normal(scale=0.3, size=shape)

    patches = "videomae.embeddings.patch_embeddings.projection"
    weights = {
        f"{patches}.weight": random(WIDTH, 3, TUBELET, PATCH, PATCH) / 10,
        f"{patches}.bias": random(WIDTH),
        "videomae.layernorm.weight": random(WIDTH, around=1),
        "videomae.layernorm.bias": random(WIDTH),
        # Parts that an encoder does not use.
        "mask_token": random(1, 1, 16),
        "encoder_to_decoder.weight": random(16, WIDTH),
        "decoder.norm.weight": random(16),
        "decoder.decoder_layers.0.attention.attention.q_bias": random(16),
    }
    for number in range(LAYERS):
        layer = f"videomae.encoder.layer.{number}"
        attention = f"{layer}.attention.attention"
        for name in ("query", "key", "value"):
            weights[f"{attention}.{name}.weight"] = random(WIDTH, WIDTH)
        weights[f"{attention}.q_bias"] = random(WIDTH) * 3
        weights[f"{attention}.v_bias"] = random(WIDTH) * 3
        if key_bias:
            weights[f"{attention}.key.bias"] = random(WIDTH)
        for name, (rows, columns) in {
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (INNER, WIDTH),
            "output.dense": (WIDTH, INNER),
        }.items():
            weights[f"{layer}.{name}.weight"] = random(rows, columns)
            weights[f"{layer}.{name}.bias"] = random(rows)
        for name in ("layernorm_before", "layernorm_after"):
            weights[f"{layer}.{name}.weight"] = random(WIDTH, around=1)
            weights[f"{layer}.{name}.bias"] = random(WIDTH)
    return weights


def write(folder: Path, weights: Arrays, *, pickled: bool = False, **config: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in weights.items()}
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def reference(weights: Arrays, clip: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The vector of a clip of the model's own size: VideoMAE's forward in numpy, float64."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = ((clip / 255 - mean) / std).transpose(3, 0, 1, 2)
    times, rows = FRAMES // TUBELET, SIDE // PATCH
    patches = pixels.reshape(3, times, TUBELET, rows, PATCH, rows, PATCH)
    patches = patches.transpose(1, 3, 5, 0, 2, 4, 6).reshape(times * rows * rows, -1)
    embeddings = "videomae.embeddings.patch_embeddings.projection"
    tokens = patches @ weights[f"{embeddings}.weight"].reshape(WIDTH, -1).T
    tokens = tokens + weights[f"{embeddings}.bias"] + positions(len(tokens))
    for number in range(LAYERS):
        layer = {
            name.removeprefix(f"videomae.encoder.layer.{number}."): value
            for name, value in weights.items()
            if name.startswith(f"videomae.encoder.layer.{number}.")
        }
        tokens = tokens + attended(normed(tokens, layer, "layernorm_before"), layer)
        inner = linear(normed(tokens, layer, "layernorm_after"), layer, "intermediate.dense")
        erf = np.vectorize(math.erf)(inner / math.sqrt(2))
        tokens = tokens + linear(inner * (1 + erf) / 2, layer, "output.dense")
    return normed(tokens, weights, "videomae.layernorm").mean(axis=0)


def positions(tokens: int) -> NDArray[np.float64]:
    """The sinusoids of "Attention is all you need": sines in even columns, cosines in odd ones."""
    columns = np.arange(WIDTH)
    angles = np.arange(tokens)[:, None] / 10000 ** (2 * (columns // 2) / WIDTH)
    return np.where(columns % 2 == 0, np.sin(angles), np.cos(angles))


def attended(tokens: NDArray[np.float64], layer: Arrays) -> NDArray[np.float64]:
    attention = "attention.attention"
    queries = tokens @ layer[f"{attention}.query.weight"].T + layer[f"{attention}.q_bias"]
    keys = tokens @ layer[f"{attention}.key.weight"].T
    values = tokens @ layer[f"{attention}.value.weight"].T + layer[f"{attention}.v_bias"]
    found = []
    for columns in np.split(np.arange(WIDTH), HEADS):
        scores = queries[:, columns] @ keys[:, columns].T / math.sqrt(len(columns))
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        found.append(shares / shares.sum(axis=1, keepdims=True) @ values[:, columns])
    return linear(np.concatenate(found, axis=1), layer, "attention.output.dense")


def linear(tokens: NDArray[np.float64], weights: Arrays, name: str) -> NDArray[np.float64]:
    return tokens @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def normed(tokens: NDArray[np.float64], weights: Arrays, name: str) -> NDArray[np.float64]:
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


@pytest.fixture
def clips() -> NDArray[np.uint8]:
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 256, (3, FRAMES, 4, 4, 3))
    return blocks.astype(np.uint8).repeat(8, axis=2).repeat(8, axis=3)


@pytest.mark.parametrize("pickled", [False, True])
def test_vectors_have_the_attentions_biases(
    clips: NDArray[np.uint8], tmp_path: Path, pickled: bool
) -> None:
    weights = original_weights()
    expected = np.stack([reference(weights, clip) for clip in clips])
    folder = write(tmp_path / "checkpoint", weights, pickled=pickled)
    found = load_encoder(folder, device="cpu", dtype="float32").encode(clips)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    # The comparison would notice biases of zero.
    for bias in ("q_bias", "v_bias"):
        without = {n: v * (0 if n.endswith(bias) else 1) for n, v in weights.items()}
        assert np.abs(reference(without, clips[0]) - expected[0]).max() > 0.05


def test_a_key_bias_has_no_effect(clips: NDArray[np.uint8], tmp_path: Path) -> None:
    # Files written by transformers 5.6 to 5.17 have one.
    weights = original_weights(key_bias=True)
    expected = np.stack([reference(weights, clip) for clip in clips])
    found = load_encoder(write(tmp_path / "checkpoint", weights), device="cpu", dtype="float32")
    np.testing.assert_allclose(found.encode(clips), expected, atol=2e-4)


def test_weights_that_the_library_would_drop_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "without", original_weights(), qkv_bias=False)
    with pytest.raises(InvalidInputError, match="does not use 4 of the encoder's weights"):
        load_encoder(folder, device="cpu")
    weights = original_weights()
    weights["videomae.encoder.layer.0.attention.attention.relative_bias"] = np.ones(WIDTH)
    with pytest.raises(InvalidInputError, match=r"does not use 1 .*relative_bias"):
        load_encoder(write(tmp_path / "more", weights), device="cpu")
