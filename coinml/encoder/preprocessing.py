"""Frames to model input in torch, on the device, with the results of transformers' processors."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from coinml.encoder.resampling import resample

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_LARGEST_GROWTH = 16
"""Resized pixels by cropped pixels, up to which a frame is resized before it is cropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessor:
    """Resize, centre crop, scale to 0..1, normalise.

    Attributes:
        resize: Shortest edge in pixels, or (height, width).
        crop: (height, width) in pixels.
        interpolation: "bilinear" or "bicubic", both with antialiasing.
        mean: Mean of each channel, for values from 0 to 1.
        std: Standard deviation of each channel, likewise.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Size that a frame is resized to before the crop, as (height, width)."""
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((height, width))
        other = int(self.resize * long / short)
        return (self.resize, other) if height <= width else (other, self.resize)

    def resized(self, frames: torch.Tensor) -> torch.Tensor:
        """Resize and crop frames to the model's input size.

        Args:
            frames: uint8 (N, height, width, 3).

        Returns:
            uint8 (N, 3, crop height, crop width), on the same device, in memory of its own: a clip
            that waits for its batch keeps neither the decoded frames nor the uncropped ones.
        """
        from torch.nn.functional import interpolate, pad

        size = self.target_size(frames.shape[1], frames.shape[2])
        rows, columns = _centre(size[0], self.crop[0]), _centre(size[1], self.crop[1])
        # Of a long picture, the part that is cropped would be many times the part that is kept.
        is_long = size[0] * size[1] > _LARGEST_GROWTH * self.crop[0] * self.crop[1]
        if frames.device.type != "cpu" or is_long:
            images = resample(frames, size, rows, columns, interpolation=self.interpolation)
        else:
            # A view in channels-last memory format, for which the CPU has a fast path.
            images = frames.permute(0, 3, 1, 2)
            if size != tuple(frames.shape[1:3]):
                images = interpolate(
                    images,
                    size=size,
                    mode=self.interpolation,
                    antialias=True,
                    align_corners=False,
                )
            images = images[:, :, slice(*rows), slice(*columns)]
            if images.untyped_storage().nbytes() != images.nbytes or size == tuple(
                frames.shape[1:3]
            ):
                images = images.clone()
        missing_y, missing_x = max(self.crop[0] - size[0], 0), max(self.crop[1] - size[1], 0)
        if missing_y or missing_x:
            # PIL pads with black if the frame is smaller than the crop.
            top, left = -(-missing_y // 2), -(-missing_x // 2)
            images = pad(images, (left, missing_x - left, top, missing_y - top))
        return images

    def normalised(self, images: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
        """Scale to 0..1 and normalise.

        Args:
            images: uint8 (..., 3, height, width).
            dtype: The model's dtype.

        Returns:
            The same shape in `dtype`, on the same device.
        """
        import torch

        mean, scale = _statistics(self.mean, self.std, images.device)
        return images.to(torch.float32).sub_(mean).mul_(scale).to(dtype)


def _centre(size: int, wanted: int) -> tuple[int, int]:
    """Start and end of the central `wanted` of `size` pixels; all of them if there are fewer."""
    start = max(size - wanted, 0) // 2
    return start, start + min(size, wanted)


@lru_cache(maxsize=32)
def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and reciprocal standard deviation per channel, for values of 0 to 255: (3, 1, 1) each.

    Cached, since creating a GPU tensor from Python numbers waits for all queued work.
    """
    import torch

    with torch.inference_mode(False):
        means = torch.tensor(mean, device=device).mul_(255).view(3, 1, 1)
        scales = torch.tensor(std, device=device).mul_(255).reciprocal_().view(3, 1, 1)
    return means, scales
