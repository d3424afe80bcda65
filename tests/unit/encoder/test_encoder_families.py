"""Every family of encoders against transformers' model and processor, on the same frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coinml.encoder.backbone import replace_patch_convolutions
from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.sampling import Sampling
from coinml.errors import InvalidInputError
from tests.helpers.small_models import PROCESSOR as VIDEOMAE_PROCESSOR
from tests.helpers.small_models import SMALL, VIDEOMAE

VJEPA2_SMALL = {
    "crop_size": 32,
    "frames_per_clip": 8,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "pred_hidden_size": 48,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "num_pooler_layers": 1,
}
PROCESSOR = {
    **VIDEOMAE_PROCESSOR,
    "size": {"shortest_edge": 34},
    "image_mean": [0.45, 0.45, 0.45],
    "image_std": [0.225, 0.225, 0.225],
}
VIVIT_PROCESSOR = {
    **PROCESSOR,
    "image_processor_type": "VivitImageProcessor",
    "size": {"shortest_edge": 36},
    "rescale_factor": 1 / 127.5,
    "offset": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}
VJEPA2_PROCESSOR = {
    **PROCESSOR,
    "video_processor_type": "VJEPA2VideoProcessor",
    # The class's constructor computes 36 and ignores this value.
    "size": {"shortest_edge": 292},
    "crop_size": 32,
    "do_sample_frames": False,
}
del VJEPA2_PROCESSOR["image_processor_type"]


def clips_of(frames: int) -> np.ndarray:
    """Three clips of 36 x 48 pixels: blocks that change with time, a base colour per clip."""
    rng = np.random.default_rng(frames)
    colour = rng.integers(0, 160, (3, 1, 1, 1, 3))
    blocks = colour + rng.integers(0, 96, (3, frames, 3, 4, 3))
    return blocks.astype(np.uint8).repeat(12, axis=2).repeat(12, axis=3)


def save(model: Any, folder: Path, processor: dict[str, Any], name: str) -> Path:
    """A checkpoint with weights so large that vectors of different clips differ clearly."""
    torch.manual_seed(0)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, mean=0.05, std=0.25)
    model.save_pretrained(folder)
    (folder / name).write_text(json.dumps(processor))
    return folder


def videomae(folder: Path) -> Path:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(**VIDEOMAE)
    return save(
        VideoMAEForVideoClassification(config), folder, PROCESSOR, "preprocessor_config.json"
    )


def timesformer(folder: Path) -> Path:
    from transformers import TimesformerConfig, TimesformerForVideoClassification

    config = TimesformerConfig(image_size=32, **SMALL)
    model = TimesformerForVideoClassification(config)
    return save(model, folder, PROCESSOR, "preprocessor_config.json")


def vivit(folder: Path) -> Path:
    from transformers import VivitConfig, VivitForVideoClassification

    config = VivitConfig(image_size=32, num_frames=32, **SMALL)
    model = VivitForVideoClassification(config)
    return save(model, folder, VIVIT_PROCESSOR, "preprocessor_config.json")


def vjepa2(folder: Path) -> Path:
    from transformers import VJEPA2Config, VJEPA2Model

    model = VJEPA2Model(VJEPA2Config(**VJEPA2_SMALL))
    return save(model, folder, VJEPA2_PROCESSOR, "video_preprocessor_config.json")


def pixels_of(folder: Path, clips: np.ndarray) -> torch.Tensor:
    """The output of transformers' processor for the clips, without torchvision."""
    from transformers import VideoMAEImageProcessorPil, VivitImageProcessor

    if (folder / "video_preprocessor_config.json").is_file():
        fields = {**VJEPA2_PROCESSOR, "size": {"shortest_edge": 36}}
        processor = VideoMAEImageProcessorPil(**fields)
    else:
        processor = VideoMAEImageProcessorPil.from_pretrained(folder)
        if processor.size["shortest_edge"] == 36:
            processor = VivitImageProcessor.from_pretrained(folder)
    frames = [list(clip) for clip in clips]
    return torch.as_tensor(np.array(processor(frames, return_tensors="np")["pixel_values"]))


def classifier_input(name: str) -> Callable[[Path, np.ndarray], np.ndarray]:
    """A function that returns the input of a classification model's last layer."""

    def reference(folder: Path, clips: np.ndarray) -> np.ndarray:
        import transformers

        model = getattr(transformers, name).from_pretrained(folder).eval()
        seen: list[torch.Tensor] = []
        model.classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        with torch.no_grad():
            model(pixels_of(folder, clips).float())
        return seen[0].numpy()

    return reference


def vjepa2_reference(folder: Path, clips: np.ndarray) -> np.ndarray:
    from transformers import VJEPA2Model

    model = VJEPA2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        return model.get_vision_features(pixels_of(folder, clips).float()).mean(1).numpy()


FAMILIES = {
    "videomae": (videomae, classifier_input("VideoMAEForVideoClassification"), 16, "mean+fc_norm"),
    "timesformer": (
        timesformer,
        classifier_input("TimesformerForVideoClassification"),
        8,
        "layernorm+cls",
    ),
    "vivit": (vivit, classifier_input("VivitForVideoClassification"), 32, "layernorm+cls"),
    "vjepa2": (vjepa2, vjepa2_reference, 8, "layernorm+mean"),
}


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_equal_the_input_of_transformers_classifier(family: str, tmp_path: Path) -> None:
    make, reference, frames, pooling = FAMILIES[family]
    folder = make(tmp_path)
    encoder = load_encoder(folder, device="cpu")
    assert (encoder.spec.architecture, encoder.spec.frames) == (family, frames)
    assert encoder.spec.pooling == pooling
    assert find_checkpoint(folder).spec() == encoder.spec
    clips = clips_of(frames)
    ours, theirs = encoder.encode(clips), reference(folder, clips)
    assert ours.shape == theirs.shape == (3, encoder.dim)
    assert cosine(ours, theirs).min() > 0.9999
    # The comparison is meaningful only if different clips differ far more than the two encodings.
    apart = 1 - cosine(ours[:1], ours[1:]).max()
    assert apart > 20 * (1 - cosine(ours, theirs).min())
    half = load_encoder(folder, device="cpu", dtype="bfloat16").encode(clips)
    assert cosine(half, theirs).min() > 0.999


@pytest.mark.parametrize("family", ["videomae", "vivit", "vjepa2"])
def test_the_patch_projection_equals_the_convolution(family: str, tmp_path: Path) -> None:
    make, _, frames, _ = FAMILIES[family]
    encoder = load_encoder(make(tmp_path), device="cpu")
    clips = clips_of(frames)
    before = encoder.encode(clips)
    model = encoder._backbone._run.model
    assert any(isinstance(module, torch.nn.Conv3d) for module in model.modules())
    replace_patch_convolutions(model)
    assert not any(isinstance(module, torch.nn.Conv3d) for module in model.modules())
    np.testing.assert_allclose(encoder.encode(clips), before, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_copy_of_each_family_is_the_same_encoder(family: str, tmp_path: Path) -> None:
    make, _, frames, _ = FAMILIES[family]
    encoder = load_encoder(make(tmp_path / "original"), device="cpu", sampling=Sampling(clips=2))
    copy = load_encoder(
        encoder.copy_to(tmp_path / "copy"), device="cpu", sampling=Sampling(clips=2)
    )
    assert copy.spec.fingerprint == encoder.spec.fingerprint
    clips = clips_of(frames)
    np.testing.assert_array_equal(copy.encode(clips), encoder.encode(clips))


@pytest.mark.parametrize("family", ["timesformer", "vivit", "vjepa2"])
def test_only_videomae_can_run_on_some_of_its_tokens(family: str, tmp_path: Path) -> None:
    folder = FAMILIES[family][0](tmp_path)
    with pytest.raises(InvalidInputError, match=rf"keep_tokens is 0\.5, but a {family}"):
        find_checkpoint(folder).spec(Sampling(keep_tokens=0.5))
    assert find_checkpoint(folder).spec(Sampling(keep_tokens=1.0)).keep_tokens == 1


def test_only_vjepa2_accepts_clips_of_other_lengths(tmp_path: Path) -> None:
    folder = vjepa2(tmp_path / "vjepa2")
    encoder = load_encoder(folder, device="cpu", sampling=Sampling(frames=4))
    assert encoder.spec.frames == encoder.clip_spec().frames == 4
    assert encoder.spec.fingerprint != find_checkpoint(folder).spec().fingerprint
    clips = clips_of(4)
    assert cosine(encoder.encode(clips), vjepa2_reference(folder, clips)).min() > 0.9999
    with pytest.raises(InvalidInputError, match="multiple of 2 frames, not 5"):
        find_checkpoint(folder).spec(Sampling(frames=5))
    with pytest.raises(InvalidInputError, match="8 frames, not 16"):
        find_checkpoint(timesformer(tmp_path / "timesformer")).spec(Sampling(frames=16))


def test_a_missing_processor_file_is_refused(tmp_path: Path) -> None:
    folder = timesformer(tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(InvalidInputError, match=r"preprocessor_config\.json, which say how frames"):
        find_checkpoint(folder).spec()


def test_missing_weights_are_not_replaced_by_random_ones(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = vivit(tmp_path)
    weights = load_file(folder / "model.safetensors")
    del weights["vivit.layernorm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInputError, match=r"lacks 1 of the model's weights.*layernorm"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"do_resize": False}, "do_resize is False"),
        ({"do_center_crop": False}, "do_center_crop is False; it must be true if"),
        ({"do_center_crop": "no"}, "do_center_crop is 'no'"),
        ({"do_pad": True}, "do_pad is True; this step is not supported"),
        ({"do_flip_channel_order": True}, "do_flip_channel_order"),
        ({"resample": 0}, "resample is 0"),
        ({"size": {"longest_edge": 40}}, "size is {'longest_edge': 40}"),
        ({"size": {"shortest_edge": 40, "longest_edge": 80}}, "size is"),
        ({"size": {"shortest_edge": "40"}}, "size is"),
        ({"crop_size": {"height": 32}}, "crop_size is"),
        ({"crop_size": 24}, r"crop_size is \(24, 24\), but the model accepts"),
        ({"image_mean": [0.5, 0.5]}, "image_mean is"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std is"),
        ({"rescale_factor": 0}, "rescale_factor is 0"),
        ({"image_processor_type": "BlipImageProcessor"}, "image_processor_type is 'BlipImage"),
    ],
)
def test_an_unsupported_processor_field_is_refused_by_name(
    changed: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = videomae(tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **changed}))
    with pytest.raises(InvalidInputError, match=message):
        find_checkpoint(folder).spec()


@pytest.mark.parametrize(
    ("changed", "mean", "std"),
    [
        ({}, 0.45, 0.225),
        ({"do_normalize": False}, 0.0, 1.0),
        ({"do_rescale": False}, 0.45 / 255, 0.225 / 255),
        ({"rescale_factor": 1 / 127.5}, 0.225, 0.1125),
        ({"image_mean": 0.4, "image_std": 0.2}, 0.4, 0.2),
    ],
)
def test_rescaling_and_normalisation_become_one_mean_and_deviation(
    changed: dict[str, Any], mean: float, std: float, tmp_path: Path
) -> None:
    folder = videomae(tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps({**PROCESSOR, **changed}))
    spec = find_checkpoint(folder).spec()
    assert spec.mean == pytest.approx((mean,) * 3, abs=1e-10)
    assert spec.std == pytest.approx((std,) * 3, abs=1e-10)


def test_vivits_offset_is_part_of_the_mean(tmp_path: Path) -> None:
    folder = vivit(tmp_path)
    spec = find_checkpoint(folder).spec()
    assert (spec.mean, spec.std) == ((0.75,) * 3, (0.25,) * 3)
    plain = {**VIVIT_PROCESSOR, "do_normalize": False}
    (folder / "preprocessor_config.json").write_text(json.dumps(plain))
    spec = find_checkpoint(folder).spec()
    assert (spec.mean, spec.std) == ((0.5,) * 3, (0.5,) * 3)
    (folder / "preprocessor_config.json").write_text(json.dumps({**plain, "do_rescale": False}))
    with pytest.raises(InvalidInputError, match="offset is True"):
        find_checkpoint(folder).spec()


def test_a_video_processor_takes_precedence_over_an_image_processor(tmp_path: Path) -> None:
    folder = videomae(tmp_path)
    first = {**PROCESSOR, "image_mean": [0.1] * 3}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(first))
    assert find_checkpoint(folder).spec().mean == (0.1,) * 3
    # A file with a tokenizer's settings alone is skipped.
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "Some"}))
    assert find_checkpoint(folder).spec().mean == (0.1,) * 3
    nested = {"video_processor": {**PROCESSOR, "image_mean": [0.2] * 3}}
    (folder / "processor_config.json").write_text(json.dumps(nested))
    assert find_checkpoint(folder).spec().mean == (0.2,) * 3
