"""The resizing for GPUs, run on a CPU, against PIL and against torch's resizing on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coinml import media
from coinml.encoder.preprocessing import Preprocessor
from coinml.encoder.resampling import _weights, resample

PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def by_pil(frames: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    pictures = [
        Image.fromarray(frame).resize(size[::-1], PIL_FILTERS[interpolation]) for frame in frames
    ]
    return np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)


def apart(ours: torch.Tensor, theirs: np.ndarray) -> np.ndarray:
    assert ours.shape == theirs.shape
    return np.abs(ours.numpy().astype(int) - theirs)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((90, 120), (40, 53)),
        ((72, 128), (36, 64)),
        ((31, 33), (64, 68)),
        ((50, 60), (50, 30)),
        ((50, 60), (25, 60)),
        ((40, 40), (40, 40)),
    ],
)
def test_noise_is_resized_like_pil(
    source: tuple[int, int], target: tuple[int, int], interpolation: str
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, *source, 3), dtype=np.uint8)
    everything = (0, target[0]), (0, target[1])
    ours = resample(torch.from_numpy(frames), target, *everything, interpolation=interpolation)
    difference = apart(ours, by_pil(frames, target, interpolation))
    assert difference.max() <= 1
    # The fixed-point weights of PIL may round halves either way.
    assert difference.mean() < 0.01


def test_a_crop_equals_that_part_of_the_whole_and_has_no_more_memory() -> None:
    frames = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 90, 160, 3), dtype=np.uint8)
    )
    size, rows, columns = (45, 80), (0, 40), (20, 60)
    whole = resample(frames, size, (0, 45), (0, 80), interpolation="bilinear")
    part = resample(frames, size, rows, columns, interpolation="bilinear")
    assert torch.equal(part, whole[:, :, slice(*rows), slice(*columns)])
    assert part.untyped_storage().nbytes() == 2 * 3 * 40 * 40
    _, needed = _weights(160, 80, columns, "bilinear", torch.device("cpu"))
    assert needed == (39, 121)


def test_a_crop_without_resizing_is_a_copy() -> None:
    frames = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    )
    part = resample(frames, (32, 48), (0, 32), (8, 40), interpolation="bilinear")
    assert torch.equal(part, frames[:, :, 8:40].permute(0, 3, 1, 2))
    assert part.untyped_storage().nbytes() == 2 * 3 * 32 * 32


@pytest.mark.parametrize("source", [(90, 120), (72, 40), (40, 40), (40, 60), (20, 44), (40, 36)])
def test_a_waiting_clip_keeps_no_other_pixels(source: tuple[int, int]) -> None:
    frames = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, *source, 3), dtype=np.uint8)
    )
    clip = Preprocessor(resize=40, crop=(40, 40)).resized(frames)
    assert clip.shape == (2, 3, 40, 40)
    assert clip.untyped_storage().nbytes() == clip.nbytes
    assert clip.untyped_storage().data_ptr() != frames.untyped_storage().data_ptr()


def test_real_clips_are_resized_like_torch_on_a_cpu(shared_data: Path) -> None:
    files = [
        path
        for pattern in ("fall/*", "fight/*", "misc/*")
        for path in sorted((shared_data / "clips").glob(pattern))[:2]
    ]
    assert len(files) == 6
    preprocessor = Preprocessor(resize=224, crop=(224, 224))
    for path in files:
        clip = torch.from_numpy(media.sample(path, media.ClipSpec(clips=1)).frames[0])
        expected = preprocessor.resized(clip)
        size = preprocessor.target_size(*clip.shape[1:3])
        top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
        kept = (top, top + 224), (left, left + 224)
        ours = resample(clip, size, *kept, interpolation="bilinear")
        difference = apart(ours, expected.numpy())
        assert difference.max() <= 1, path
        assert difference.mean() < 0.01, path


@pytest.mark.parametrize("size", [(16, 8000), (8000, 16), (40, 3000)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_long_picture_is_cropped_before_it_is_resized(
    size: tuple[int, int], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocessor = Preprocessor(resize=96, crop=(96, 96), interpolation=interpolation)
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=generator)
    whole = torch.nn.functional.interpolate(
        frames.permute(0, 3, 1, 2),
        size=preprocessor.target_size(*size),
        mode=interpolation,
        antialias=True,
        align_corners=False,
    )
    top, left = ((length - 96) // 2 for length in whole.shape[2:])
    expected = whole[:, :, top : top + 96, left : left + 96]

    def too_large(*_: object, **__: object) -> None:
        raise AssertionError("the whole picture is resized")

    monkeypatch.setattr(torch.nn.functional, "interpolate", too_large)
    images = preprocessor.resized(frames)
    assert images.shape == (2, 3, 96, 96)
    difference = (images.int() - expected.int()).abs()
    # torch computes in integers of 16 bits; the frames are noise.
    assert difference.max() <= 2
    assert difference.float().mean() < 0.1
