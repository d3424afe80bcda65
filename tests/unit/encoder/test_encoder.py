"""The encoder against transformers, on real clips and unusual checkpoints."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from coinml import media
from coinml.encoder.checkpoint import find_checkpoint
from coinml.encoder.clip_encoder import load_encoder
from coinml.encoder.preprocessing import Preprocessor
from coinml.encoder.sampling import Sampling
from coinml.encoder.spec import EncoderSpec
from coinml.encoder.token_masking import kept_positions
from coinml.errors import InvalidInputError, TransientError
from coinml.miniature.tiny_checkpoint import TINY_CHECKPOINT
from tests.helpers.small_models import VIDEOMAE


@pytest.fixture
def clips() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (3, 16, 36, 48, 3), dtype=np.uint8)


@pytest.fixture
def encoder_copy(tiny_encoder_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_encoder_dir, tmp_path / "copy"))


def _reference(folder: Path, clips: np.ndarray) -> np.ndarray:
    """Vectors of the same frames by the code in transformers' documentation."""
    from transformers import VideoMAEImageProcessorPil, VideoMAEModel

    processor = VideoMAEImageProcessorPil.from_pretrained(folder)
    model = VideoMAEModel.from_pretrained(folder).eval()
    inputs = processor([list(clip) for clip in clips], return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).last_hidden_state.mean(1).numpy()


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_embeddings_equal_those_of_transformers(tiny_encoder_dir: Path, clips: np.ndarray) -> None:
    ours = load_encoder(tiny_encoder_dir).encode(clips)
    theirs = _reference(tiny_encoder_dir, clips)
    assert ours.dtype == np.float32
    assert ours.shape == (3, 32)
    assert _cosine(ours, theirs).min() > 0.9999


def test_preprocessing_agrees_with_transformers_processor_on_real_clips(
    shared_data: Path,
) -> None:
    from transformers import VideoMAEImageProcessorPil

    preprocessor = Preprocessor(resize=224, crop=(224, 224))
    processor = VideoMAEImageProcessorPil()
    spec = media.ClipSpec(clips=1)
    files = [
        path
        for pattern in ("fall/*", "fight/*", "misc/*")
        for path in sorted((shared_data / "clips").glob(pattern))[:2]
    ]
    assert len(files) == 6
    for path in files:
        clip = media.sample(path, spec).frames[0]
        theirs = processor([list(clip)], do_normalize=False, do_rescale=False, return_tensors="np")[
            "pixel_values"
        ][0]
        ours = preprocessor.resized(torch.from_numpy(clip)).numpy()
        assert ours.shape == theirs.shape == (16, 3, 224, 224)
        assert np.abs(ours.astype(float) - theirs).mean() < 2, path


@pytest.mark.parametrize("size", [(20, 30), (32, 32), (31, 90), (90, 31)])
def test_preprocessing_agrees_for_odd_sizes(size: tuple[int, int]) -> None:
    from transformers import VideoMAEImageProcessorPil

    frames = np.random.default_rng(0).integers(0, 255, (2, *size, 3), dtype=np.uint8)
    processor = VideoMAEImageProcessorPil(
        size={"shortest_edge": 40}, crop_size={"height": 48, "width": 44}
    )
    theirs = processor([list(frames)], return_tensors="np")["pixel_values"][0]
    preprocessor = Preprocessor(resize=40, crop=(48, 44), mean=(0.5,) * 3, std=(0.5,) * 3)
    pictures = preprocessor.resized(torch.from_numpy(frames))
    ours = preprocessor.normalised(pictures, dtype=torch.float32).numpy()
    theirs = (theirs * np.array(processor.image_std).reshape(3, 1, 1)) + np.array(
        processor.image_mean
    ).reshape(3, 1, 1)
    assert np.abs((ours * 0.5 + 0.5) - theirs).mean() < 2 / 255


def test_vectors_depend_on_batching_by_rounding_only(
    tiny_encoder_dir: Path, clips: np.ndarray
) -> None:
    encoder = load_encoder(tiny_encoder_dir)
    whole = encoder.encode(clips, batch_clips=3)
    single = np.concatenate([encoder.encode(clips[i : i + 1], batch_clips=1) for i in range(3)])
    np.testing.assert_allclose(whole, single, atol=1e-5)
    assert encoder.encode([]).shape == (0, 32)


def test_clips_of_different_sizes_share_a_batch(tiny_encoder_dir: Path, clips: np.ndarray) -> None:
    encoder = load_encoder(tiny_encoder_dir)
    mixed = [clips[0], clips[1][:, :20, :24], clips[2]]
    np.testing.assert_allclose(encoder.encode(mixed)[[0, 2]], encoder.encode(clips)[[0, 2]], 1e-4)


def test_a_copy_is_the_same_encoder(tiny_encoder_dir: Path, tmp_path: Path) -> None:
    original = load_encoder(tiny_encoder_dir)
    copy = load_encoder(original.copy_to(tmp_path / "elsewhere"))
    assert copy.spec.encoder != original.spec.encoder
    assert copy.spec.fingerprint == original.spec.fingerprint
    assert copy.spec == original.spec


def test_the_fingerprint_changes_with_sampling_and_preprocessing(encoder_copy: Path) -> None:
    seen = {load_encoder(encoder_copy).spec.fingerprint}
    seen.add(load_encoder(encoder_copy, sampling=Sampling(clips=4)).spec.fingerprint)
    seen.add(load_encoder(encoder_copy, sampling=Sampling(stride=2)).spec.fingerprint)
    processor = json.loads((encoder_copy / "preprocessor_config.json").read_text())
    processor["image_mean"] = [0.5, 0.5, 0.5]
    (encoder_copy / "preprocessor_config.json").write_text(json.dumps(processor))
    seen.add(load_encoder(encoder_copy).spec.fingerprint)
    assert len(seen) == 4


def test_the_spec_survives_json(tiny_encoder_dir: Path) -> None:
    spec = load_encoder(tiny_encoder_dir).spec
    again = EncoderSpec.from_dict(json.loads(json.dumps(spec.as_dict())))
    assert again == spec
    assert again.fingerprint == spec.fingerprint == spec.as_dict()["fingerprint"]
    assert len(spec.fingerprint) == 12


def test_the_spec_is_computed_without_torch(tiny_encoder_dir: Path) -> None:
    code = (
        "import sys; from coinml.encoder.checkpoint import find_checkpoint; "
        "from coinml.encoder.sampling import Sampling; "
        f"print(find_checkpoint({str(tiny_encoder_dir)!r}).spec(Sampling(clips=3)).fingerprint); "
        "print([m for m in ('torch', 'transformers', 'av') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = load_encoder(tiny_encoder_dir, sampling=Sampling(clips=3)).spec
    assert run.stdout.split("\n")[:2] == [loaded.fingerprint, "[]"]
    assert find_checkpoint(tiny_encoder_dir).spec(Sampling(clips=3)) == loaded


def test_imagenet_statistics_without_a_processor_file(encoder_copy: Path) -> None:
    (encoder_copy / "preprocessor_config.json").unlink()
    spec = load_encoder(encoder_copy).spec
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec.std == (0.229, 0.224, 0.225)
    assert spec.crop == (32, 32)


def test_kept_tokens_equal_the_unmasked_tokens_of_transformers(
    tiny_encoder_dir: Path, clips: np.ndarray
) -> None:
    from transformers import VideoMAEImageProcessorPil, VideoMAEModel

    encoder = load_encoder(tiny_encoder_dir, sampling=Sampling(keep_tokens=0.5, keep_seed=3))
    kept = kept_positions(4, keep_tokens=0.5, keep_seed=3)
    assert len(kept) == 2
    masked = torch.tensor([position not in kept for position in range(4)]).repeat(8)
    inputs = VideoMAEImageProcessorPil.from_pretrained(tiny_encoder_dir)(
        [list(clip) for clip in clips], return_tensors="pt"
    )
    model = VideoMAEModel.from_pretrained(tiny_encoder_dir).eval()
    with torch.no_grad():
        tokens = model(**inputs, bool_masked_pos=masked.expand(3, -1)).last_hidden_state
    assert tokens.shape == (3, 16, 32)
    assert _cosine(encoder.encode(clips), tokens.mean(1).numpy()).min() > 0.9999
    full = load_encoder(tiny_encoder_dir).encode(clips)
    assert _cosine(encoder.encode(clips), full).max() < 0.9999


def test_a_position_is_kept_in_all_frames_or_in_none(tiny_encoder_dir: Path) -> None:
    encoder = load_encoder(tiny_encoder_dir, sampling=Sampling(keep_tokens=0.25))
    (kept,) = kept_positions(4, keep_tokens=0.25, keep_seed=0)
    black = np.zeros((16, 32, 32, 3), dtype=np.uint8)
    vectors = {}
    for position in range(4):
        for frame in (0, 9, 15):
            clip = black.copy()
            y, x = 16 * (position // 2), 16 * (position % 2)
            clip[frame, y : y + 16, x : x + 16] = 255
            vectors[position, frame] = encoder.encode([clip])
    for (position, _), vector in vectors.items():
        assert np.array_equal(vector, encoder.encode([black])) == (position != kept)


def test_kept_positions_depend_only_on_share_and_seed() -> None:
    assert kept_positions(16, keep_tokens=0.25, keep_seed=0) == [4, 7, 9, 15]
    quarter = kept_positions(196, keep_tokens=0.25, keep_seed=0)
    assert len(quarter) == len(set(quarter)) == 49
    assert quarter == sorted(quarter)
    assert quarter != kept_positions(196, keep_tokens=0.25, keep_seed=1)
    assert set(kept_positions(196, keep_tokens=0.1, keep_seed=0)) < set(quarter)
    assert len(kept_positions(4, keep_tokens=0.001, keep_seed=0)) == 1
    assert kept_positions(4, keep_tokens=1.0, keep_seed=5) == [0, 1, 2, 3]


def test_kept_tokens_are_part_of_the_fingerprint(tiny_encoder_dir: Path) -> None:
    full = load_encoder(tiny_encoder_dir).spec
    again = find_checkpoint(tiny_encoder_dir).spec(Sampling(keep_tokens=1, keep_seed=7))
    assert again == full
    assert again.fingerprint == full.fingerprint
    half = load_encoder(tiny_encoder_dir, sampling=Sampling(keep_tokens=0.5)).spec
    assert (half.keep_tokens, half.keep_seed) == (0.5, 0)
    assert half == find_checkpoint(tiny_encoder_dir).spec(Sampling(keep_tokens=0.5))
    other = find_checkpoint(tiny_encoder_dir).spec(Sampling(keep_tokens=0.5, keep_seed=1))
    assert len({full.fingerprint, half.fingerprint, other.fingerprint}) == 3


def test_the_packages_own_encoder_keeps_its_fingerprint() -> None:
    # Existing sets and registered models refer to this fingerprint.
    assert find_checkpoint(TINY_CHECKPOINT).spec().fingerprint == "0805879d8d74"


@pytest.mark.parametrize("share", [0, -0.5, 1.5, float("nan"), float("inf"), "half", True])
def test_an_invalid_share_of_tokens_is_refused(tiny_encoder_dir: Path, share: float) -> None:
    with pytest.raises(InvalidInputError, match="keep_tokens"):
        find_checkpoint(tiny_encoder_dir).spec(Sampling(keep_tokens=share))
    with pytest.raises(InvalidInputError, match="keep_seed"):
        load_encoder(tiny_encoder_dir, sampling=Sampling(keep_tokens=0.5, keep_seed=-1))


def test_a_classification_checkpoint_pools_through_its_norm(
    tmp_path: Path, clips: np.ndarray
) -> None:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    config = VideoMAEConfig(**VIDEOMAE)
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(config).eval()
    torch.nn.init.normal_(model.fc_norm.weight)
    model.save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert encoder.spec.pooling == "mean+fc_norm"
    pooled: list[torch.Tensor] = []
    model.classifier.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    preprocessor = Preprocessor(resize=32, crop=(32, 32))
    pixels = torch.stack(
        [
            preprocessor.normalised(
                preprocessor.resized(torch.from_numpy(clip)), dtype=torch.float32
            )
            for clip in clips
        ]
    )
    with torch.no_grad():
        model(pixels)
    assert _cosine(encoder.encode(clips), pooled[0].numpy()).min() > 0.9999


def test_a_pretraining_checkpoint_pools_after_its_layernorm(
    tmp_path: Path, clips: np.ndarray
) -> None:
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    config = VideoMAEConfig(
        **VIDEOMAE,
        use_mean_pooling=False,
        decoder_num_hidden_layers=1,
        decoder_hidden_size=32,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    VideoMAEForPreTraining(config).save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert encoder.spec.pooling == "layernorm+mean"
    assert encoder.encode(clips).shape == (3, 32)


def test_an_invalid_reference_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no such folder"):
        load_encoder(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match=r"config\.json"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InvalidInputError, match="'bert'; known: videomae"):
        load_encoder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidInputError):
        load_encoder(tmp_path)


def test_an_unreachable_hub_is_a_transient_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TransientError, match="nobody/nothing"):
        load_encoder("nobody/nothing", revision="abc")


def test_broken_or_missing_weights_are_invalid_input(encoder_copy: Path) -> None:
    weights = encoder_copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvalidInputError):
        load_encoder(encoder_copy)
    weights.unlink()
    with pytest.raises(InvalidInputError, match=r"model\.safetensors"):
        load_encoder(encoder_copy)


def test_a_clip_of_another_length_is_refused(tiny_encoder_dir: Path, clips: np.ndarray) -> None:
    with pytest.raises(InvalidInputError, match="16"):
        load_encoder(tiny_encoder_dir).encode(clips[:, :8])
    with pytest.raises(InvalidInputError, match="frames"):
        load_encoder(tiny_encoder_dir, sampling=Sampling(frames=8))


def test_loading_is_silent(tiny_encoder_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_encoder(tiny_encoder_dir)
    assert capfd.readouterr() == ("", "")


def test_tiny_names_the_encoder_in_the_package() -> None:
    named, by_folder = find_checkpoint("tiny"), find_checkpoint(TINY_CHECKPOINT)
    assert named.folder == TINY_CHECKPOINT
    assert named.spec() == by_folder.spec()
