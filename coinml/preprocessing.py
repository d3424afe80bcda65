"""Frames to model input in torch, on the device, as transformers' own processors do it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PROCESSOR_FILES = (
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
)
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}


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

    @classmethod
    def from_folder(cls, folder: Path, *, image_size: int) -> Preprocessor:
        """Read a checkpoint's processor file.

        Args:
            folder: The checkpoint's folder. Where it has no processor file, frames are brought
                to the model's size and normalised as for ImageNet, which is what VideoMAE was
                trained with (a default-constructed processor would take 0.5 for all).
            image_size: Side of the model's input in pixels.

        Raises:
            InvalidInputError: The file asks for something else than is done here.
        """
        for name in PROCESSOR_FILES:
            path = folder / name
            if path.is_file():
                try:
                    fields = json.loads(path.read_text(encoding="utf-8"))
                except ValueError as err:
                    raise InvalidInputError(f"{path}: not JSON: {err}") from err
                fields = fields.get("video_processor") or fields.get("image_processor") or fields
                return cls._from_fields(fields, image_size, origin=path)
        return cls(resize=image_size, crop=(image_size, image_size))

    @classmethod
    def _from_fields(
        cls, fields: Mapping[str, Any], image_size: int, *, origin: Path
    ) -> Preprocessor:
        interpolation = _INTERPOLATIONS.get(fields.get("resample", 2))
        if interpolation is None:
            raise InvalidInputError(
                f"{origin}: resample is {fields['resample']}; known: {_INTERPOLATIONS}"
            )
        for switch in ("do_resize", "do_rescale", "do_normalize"):
            if fields.get(switch, True) is not True:
                raise InvalidInputError(f"{origin}: {switch} is {fields[switch]}; it must be true")
        size = fields.get("size", image_size)
        if isinstance(size, Mapping):
            size = size.get("shortest_edge") or (size["height"], size["width"])
        crop = fields.get("crop_size", image_size)
        if isinstance(crop, Mapping):
            crop = (crop["height"], crop["width"])
        elif isinstance(crop, int):
            crop = (crop, crop)
        if fields.get("do_center_crop", True) is not True:
            crop = size if isinstance(size, tuple) else crop
        return cls(
            resize=size,
            crop=tuple(crop),
            interpolation=interpolation,
            mean=tuple(fields.get("image_mean", IMAGENET_MEAN)),
            std=tuple(fields.get("image_std", IMAGENET_STD)),
        )

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
        import torch
        from torch.nn.functional import interpolate, pad

        # A view with the channels last in memory, for which the CPU has a fast path.
        pictures = frames.permute(0, 3, 1, 2)
        size = self.target_size(frames.shape[1], frames.shape[2])
        if size != tuple(frames.shape[1:3]):
            on_cpu = pictures.device.type == "cpu"
            # CUDA resizes no integers; rounding makes both come out as PIL does.
            scaled = interpolate(
                pictures if on_cpu else pictures.to(torch.float32),
                size=size,
                mode=self.interpolation,
                antialias=True,
                align_corners=False,
            )
            pictures = scaled if on_cpu else scaled.round_().clamp_(0, 255).to(torch.uint8)
        height, width = self.crop
        missing_y, missing_x = max(height - size[0], 0), max(width - size[1], 0)
        if missing_y or missing_x:
            # PIL's crop pads with black where the picture is smaller.
            top, left = -(-missing_y // 2), -(-missing_x // 2)
            pictures = pad(pictures, (left, missing_x - left, top, missing_y - top))
        top = (pictures.shape[2] - height) // 2
        left = (pictures.shape[3] - width) // 2
        return pictures[:, :, top : top + height, left : left + width]

    def normalised(self, pictures: torch.Tensor, *, dtype: torch.dtype) -> torch.Tensor:
        """Scale and normalise.

        Args:
            pictures: uint8 (..., 3, height, width).
            dtype: What the model takes.

        Returns:
            The same shape in `dtype`, on the same device.
        """
        import torch

        mean = torch.tensor(self.mean, device=pictures.device).mul_(255).view(3, 1, 1)
        scale = torch.tensor(self.std, device=pictures.device).mul_(255).reciprocal_().view(3, 1, 1)
        return pictures.to(torch.float32).sub_(mean).mul_(scale).to(dtype)
