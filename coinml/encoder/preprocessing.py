"""Frames to model input in torch, on the device, as transformers' own processors do it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from coinml.encoder.resampling import resample

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessor:
    """Resize, centre crop, scale to 0..1, normalise.

    Attributes:
        resize: Shortest edge in pixels, or (height, width).
        crop: (height, width) in pixels.
        interpolation: "bilinear" or "bicubic", both with antialiasing.
        mean: Of each channel, of values from 0 to 1.
        std: Of each channel.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def target_size(self, height: int, width: int) -> tuple[int, int]:
        """Size that a picture is brought to before the crop, as (height, width)."""
        if isinstance(self.resize, tuple):
            return self.resize
        short, long = sorted((height, width))
        other = int(self.resize * long / short)
        return (self.resize, other) if height <= width else (other, self.resize)

    def resized(self, frames: torch.Tensor) -> torch.Tensor:
        """Bring frames to the model's size.

        Args:
            frames: uint8 (N, height, width, 3).

        Returns:
            uint8 (N, 3, crop height, crop width), on the same device.
        """
        from torch.nn.functional import interpolate, pad

        size = self.target_size(frames.shape[1], frames.shape[2])
        rows, columns = _middle(size[0], self.crop[0]), _middle(size[1], self.crop[1])
        if frames.device.type != "cpu":
            pictures = resample(frames, size, rows, columns, interpolation=self.interpolation)
        else:
            # A view with the channels last in memory, for which the CPU has a fast path.
            pictures = frames.permute(0, 3, 1, 2)
            if size != tuple(frames.shape[1:3]):
                pictures = interpolate(
                    pictures,
                    size=size,
                    mode=self.interpolation,
                    antialias=True,
                    align_corners=False,
                )
            pictures = pictures[:, :, slice(*rows), slice(*columns)]
        missing_y, missing_x = max(self.crop[0] - size[0], 0), max(self.crop[1] - size[1], 0)
        if missing_y or missing_x:
            # PIL's crop pads with black where the picture is smaller.
            top, left = -(-missing_y // 2), -(-missing_x // 2)
            pictures = pad(pictures, (left, missing_x - left, top, missing_y - top))
        return pictures

    def normalised(self, pictures: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
        """Scale and normalise.

        Args:
            pictures: uint8 (..., 3, height, width).
            dtype: What the model takes.

        Returns:
            The same shape in `dtype`, on the same device.
        """
        import torch

        mean, scale = _statistics(self.mean, self.std, pictures.device)
        return pictures.to(torch.float32).sub_(mean).mul_(scale).to(dtype)


def _middle(size: int, wanted: int) -> tuple[int, int]:
    """The middle part of a line of pixels; all of it where there are fewer."""
    start = max(size - wanted, 0) // 2
    return start, start + min(size, wanted)


@lru_cache(maxsize=32)
def _statistics(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """What to subtract from each channel of 0 to 255 and what to multiply it with: (3, 1, 1) each.

    Kept, because making a tensor on a GPU from numbers waits for all that the GPU has to do.
    """
    import torch

    with torch.inference_mode(False):
        means = torch.tensor(mean, device=device).mul_(255).view(3, 1, 1)
        scales = torch.tensor(std, device=device).mul_(255).reciprocal_().view(3, 1, 1)
    return means, scales
