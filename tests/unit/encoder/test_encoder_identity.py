"""Whatever changes an encoder's vectors changes its fingerprint, or is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coinml.encoder.architectures import ARCHITECTURES
from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.errors import InvalidInputError
from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT
from tests.unit.encoder.test_encoder_families import FAMILIES, clips_of

ACTIVATIONS = ("gelu", "relu", "gelu_fast", "silu")
ATTENTIONS = ("space_only", "joint_space_time", "divided_space_time")


def changed(folder: Path, target: Path, **fields: Any) -> Path:
    """A copy of a checkpoint with other values in its configuration; None removes a field."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text()) | fields
    kept = {name: value for name, value in config.items() if value is not None}
    (target / "config.json").write_text(json.dumps(kept))
    return target


def other_values(name: str, value: Any) -> Iterator[Any]:
    """Other values of a field, of its type."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value * 2, value + 1, value // 2)
    elif isinstance(value, float):
        yield from (value + 0.25, value * 3)
    elif isinstance(value, str):
        yield from ({*ACTIVATIONS, *ATTENTIONS} - {value})
    elif isinstance(value, list | tuple):
        yield [2 * side for side in value]


def encoded(folder: Path, frames: int) -> tuple[EncoderSpec, np.ndarray]:
    """A checkpoint's spec and its vectors of some clips of a given length."""
    encoder = load_encoder(folder, device="cpu", sampling=Sampling(frames=frames))
    return encoder.spec, encoder.encode(clips_of(frames)[:1])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_that_changes_the_vectors_changes_the_fingerprint(
    family: str, tmp_path: Path
) -> None:
    import transformers

    make, _, frames, _ = FAMILIES[family]
    folder = make(tmp_path / "original")
    spec, vectors = encoded(folder, frames)
    config_class = getattr(transformers, ARCHITECTURES[family].model_class).config_class
    fields = config_class(**json.loads((folder / "config.json").read_text())).to_dict()
    assert len(fields) > 20
    had_effect = set()
    for name, value in fields.items():
        for other in other_values(name, value):
            try:
                seen, found = encoded(
                    changed(folder, tmp_path / "changed", **{name: other}), frames
                )
            except InvalidInputError:
                # No vectors, so none of another encoder either.
                continue
            if not np.array_equal(found, vectors):
                had_effect.add(name)
                assert seen.fingerprint != spec.fingerprint, (name, other)
                again = EncoderSpec.from_dict(json.loads(json.dumps(seen.as_dict())))
                assert again == seen
                assert again.fingerprint == seen.as_dict()["fingerprint"] == seen.fingerprint
            break
    assert had_effect >= {
        "num_attention_heads",
        "hidden_act",
        "layer_norm_eps",
        "num_hidden_layers",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_of_a_later_transformers_changes_the_fingerprint(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    make, _, frames, _ = FAMILIES[family]
    folder = make(tmp_path / "original")
    spec, vectors = encoded(folder, frames)
    model_class = getattr(transformers, ARCHITECTURES[family].model_class)
    forward = model_class.forward

    def shifted(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = forward(self, *args, **kwargs)
        output.last_hidden_state[..., 0] += getattr(self.config, "token_shift", 0.0)
        return output

    monkeypatch.setattr(model_class, "forward", shifted)
    seen, found = encoded(changed(folder, tmp_path / "changed", token_shift=2.0), frames)
    assert not np.allclose(found, vectors)
    assert seen.architecture == f"{family}(token_shift=2.0)"
    assert seen.fingerprint != spec.fingerprint


@pytest.mark.parametrize("family", FAMILIES)
def test_our_defaults_are_those_of_transformers(family: str) -> None:
    import transformers

    architecture = ARCHITECTURES[family]
    theirs = getattr(transformers, architecture.model_class).config_class().to_dict()
    for name, value in architecture.defaults.items():
        assert theirs[name] == (list(value) if isinstance(value, tuple) else value), name


PUBLISHED: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    # Configurations of published checkpoints, as transformers wrote them then, and tensors.
    "videomae-base": (
        "videomae",
        {
            "architectures": ["VideoMAEForPreTraining"],
            "qkv_bias": True,
            "torch_dtype": "float32",
            "transformers_version": "4.22.0.dev0",
            "use_mean_pooling": False,
            "norm_pix_loss": True,
            "decoder_hidden_size": 384,
        },
        [f"videomae.encoder.layer.{n}.output.dense.bias" for n in range(12)],
    ),
    "videomae-small": (
        "videomae",
        {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 16},
        [f"videomae.encoder.layer.{n}.output.dense.bias" for n in range(12)],
    ),
    "videomae-huge": (
        "videomae",
        {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_attention_heads": 16,
            "num_hidden_layers": 32,
            "id2label": {"0": "abseiling"},
            "label2id": {"abseiling": 0},
            "problem_type": "single_label_classification",
        },
        [f"videomae.encoder.layer.{n}.output.dense.bias" for n in range(32)],
    ),
    "timesformer-hr": (
        "timesformer",
        {"num_frames": 16, "image_size": 448, "drop_path_rate": 0, "qkv_bias": True},
        [f"timesformer.encoder.layer.{n}.output.dense.bias" for n in range(12)],
    ),
    "vivit-b-16x2": (
        "vivit",
        {"num_frames": 32, "video_size": [32, 224, 224], "tubelet_size": [2, 16, 16]},
        [f"vivit.encoder.layer.{n}.output.dense.bias" for n in range(12)],
    ),
    "vjepa2-vitg": (
        "vjepa2",
        {
            "hidden_size": 1408,
            "num_attention_heads": 22,
            "num_hidden_layers": 40,
            "mlp_ratio": 4.363636363636363,
            "crop_size": 384,
            "frames_per_clip": 64,
            "pred_hidden_size": 384,
            "attention_dropout": 0.0,
        },
        [f"encoder.layer.{n}.mlp.fc1.bias" for n in range(40)],
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoints_keep_their_fingerprints(name: str) -> None:
    from coinml.encoder.model_config import model_fields, unusual_fields

    family, config, tensors = PUBLISHED[name]
    architecture = ARCHITECTURES[family]
    fields = model_fields({**architecture.defaults, **config, "model_type": family}, ref=name)
    assert unusual_fields(fields, architecture, tensors) == {}


def test_the_unusual_fields_are_named_in_order(tmp_path: Path) -> None:
    folder = FAMILIES["videomae"][0](tmp_path / "original")
    assert find_checkpoint(folder).spec().architecture == "videomae"
    assert find_checkpoint(TINY_CHECKPOINT).spec().architecture == "videomae"
    other = changed(
        folder, tmp_path / "other", num_attention_heads=4, hidden_act="relu", num_hidden_layers=1
    )
    spec = find_checkpoint(other).spec()
    assert spec.architecture == (
        'videomae(hidden_act="relu", num_attention_heads=4, num_hidden_layers=1)'
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return FAMILIES["videomae"][0](tmp_path / "checkpoint")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transformers_weights", "other.safetensors"),
        ("auto_map", {"AutoModel": "modeling_other.OtherModel"}),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
        ("fusion_config", {"patch_embeddings": True}),
        ("pruned_heads", {"0": [1]}),
    ],
)
def test_a_field_that_asks_for_other_weights_or_code_is_refused(
    folder: Path, tmp_path: Path, name: str, value: Any
) -> None:
    asking = changed(folder, tmp_path / "asking", **{name: value})
    shutil.copy(asking / "model.safetensors", asking / "other.safetensors")
    with pytest.raises(InvalidInputError, match=f"config.json: {name} is "):
        find_checkpoint(asking)


def test_files_beside_the_hashed_weights_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    spec, vectors = encoded(folder, 16)
    more = Path(shutil.copytree(folder, tmp_path / "more"))
    zeros = {k: torch.zeros_like(v) for k, v in load_file(more / "model.safetensors").items()}
    torch.save(zeros, more / "pytorch_model.bin")
    save_file(zeros, more / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    save_file(zeros, more / "model.fp16.safetensors", metadata={"format": "pt"})
    (more / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict.fromkeys(zeros, "model-00001-of-00001.safetensors")})
    )
    seen, found = encoded(more, 16)
    assert seen.fingerprint == spec.fingerprint
    np.testing.assert_array_equal(found, vectors)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("heads", [3, 0, -2, "2", 2.0])
def test_a_number_of_heads_that_does_not_divide_the_width_is_refused(
    family: str, heads: Any, tmp_path: Path
) -> None:
    folder = FAMILIES[family][0](tmp_path / "original")
    odd = changed(folder, tmp_path / "odd", num_attention_heads=5 if heads == 3 else heads)
    with pytest.raises(InvalidInputError, match=r"num_attention_heads is .*; it must be a"):
        find_checkpoint(odd).spec()


def test_an_adapter_beside_the_weights_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InvalidInputError, match=r"has an adapter_config\.json, and adapters are"):
        find_checkpoint(folder)


def test_fields_that_only_describe_change_nothing(folder: Path, tmp_path: Path) -> None:
    spec, vectors = encoded(folder, 16)
    described = changed(
        folder,
        tmp_path / "described",
        return_dict=False,
        output_attentions=True,
        _name_or_path="elsewhere",
        _attn_implementation="flash_attention_2",
        torch_dtype="float16",
        id2label={"0": "a", "1": "b", "2": "c"},
    )
    seen, found = encoded(described, 16)
    assert seen.fingerprint == spec.fingerprint
    np.testing.assert_array_equal(found, vectors)


def test_a_loaded_model_does_not_change_with_its_files(folder: Path) -> None:
    encoder = load_encoder(folder, device="cpu")
    clips = clips_of(16)[:1]
    before = encoder.encode(clips)
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        file.write(bytes(weights.stat().st_size // 2))
    np.testing.assert_array_equal(encoder.encode(clips), before)
