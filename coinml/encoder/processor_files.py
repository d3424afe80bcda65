"""Reads a checkpoint's processor file; fields that are not supported are refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coinml.encoder.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessor
from coinml.errors import InvalidInputError

PROCESSOR_FILES = (
    "processor_config.json",
    "video_preprocessor_config.json",
    "preprocessor_config.json",
)
"""In the order in which transformers looks for a video's processor."""

_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    # Values of missing fields. For VideoMAE and TimeSformer the processor classes would use
    # statistics of 0.5, with which no checkpoint was trained.
    "videomae": {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD},
    "timesformer": {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD},
    "vjepa2": {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD},
    "vivit": {
        "size": {"shortest_edge": 256},
        "rescale_factor": 1 / 127.5,
        "offset": True,
        "image_mean": (0.5, 0.5, 0.5),
        "image_std": (0.5, 0.5, 0.5),
    },
}
_SUPPORTED_STEPS = {"do_resize", "do_center_crop", "do_rescale", "do_normalize"}
_IGNORED_STEPS = {"do_convert_rgb", "do_sample_frames"}
"""Frames are already RGB and sampled as the spec says."""
_INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}


def read_processor(
    folder: Path, *, family: str, image_size: tuple[int, int]
) -> Preprocessor | None:
    """Read a checkpoint's processor file, for images or for videos.

    Args:
        folder: The checkpoint's folder.
        family: The checkpoint's model type, for the defaults of missing fields.
        image_size: (height, width) of the model's input in pixels, likewise.

    Returns:
        The preprocessor; None if the folder has no such file.

    Raises:
        InvalidInputError: The file asks for a step or value that is not supported; the message
            names the file and the field.
    """
    for name in PROCESSOR_FILES:
        path = folder / name
        if not path.is_file():
            continue
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as err:
            raise InvalidInputError(f"{path}: not JSON: {err}") from err
        if not isinstance(fields, dict):
            raise InvalidInputError(f"{path}: not a processor configuration")
        nested = fields.get("video_processor") or fields.get("image_processor")
        if nested is None and name == PROCESSOR_FILES[0]:
            # In an older format this file has no fields for preprocessing.
            continue
        return _File(path, nested or fields, family, image_size).preprocessor()
    return None


class _File:
    """The fields of a processor file."""

    def __init__(
        self, path: Path, fields: Mapping[str, Any], family: str, image_size: tuple[int, int]
    ) -> None:
        self._path = path
        self._fields = fields
        self._family = self._named_family() or family
        self._defaults = {
            "size": {"shortest_edge": min(image_size)},
            "crop_size": {"height": image_size[0], "width": image_size[1]},
            **_FAMILIES[self._family],
        }

    def preprocessor(self) -> Preprocessor:
        self._check_steps()
        crop = self._crop()
        size = self._size(crop)
        if not self._switch("do_center_crop"):
            if not isinstance(size, tuple):
                raise self._wrong("do_center_crop", "it must be true if size is one edge")
            crop = size
        mean, std = self._statistics()
        return Preprocessor(
            resize=size, crop=crop, interpolation=self._interpolation(), mean=mean, std=std
        )

    def _get(self, name: str, default: Any = None) -> Any:
        value = self._fields.get(name)
        return self._defaults.get(name, default) if value is None else value

    def _switch(self, name: str) -> bool:
        value = self._get(name, True)
        if not isinstance(value, bool):
            raise self._wrong(name, "it must be true or false")
        return value

    def _wrong(self, name: str, allowed: str) -> InvalidInputError:
        return InvalidInputError(f"{self._path}: {name} is {self._fields.get(name)!r}; {allowed}")

    def _named_family(self) -> str | None:
        """The family of the processor's class, which may differ from the model's."""
        for field in ("video_processor_type", "image_processor_type", "feature_extractor_type"):
            name = self._fields.get(field)
            if name is None:
                continue
            for family in _FAMILIES:
                if str(name).lower().startswith(family):
                    return family
            raise self._wrong(field, f"known: those of {', '.join(_FAMILIES)}")
        return None

    def _check_steps(self) -> None:
        if not self._switch("do_resize"):
            raise self._wrong("do_resize", "it must be true")
        for name, value in self._fields.items():
            if name.startswith("do_") and value and name not in _SUPPORTED_STEPS | _IGNORED_STEPS:
                raise self._wrong(name, "this step is not supported")

    def _interpolation(self) -> str:
        found = _INTERPOLATIONS.get(self._get("resample", 2))
        if found is None:
            raise self._wrong("resample", f"known: {_INTERPOLATIONS}")
        return found

    def _crop(self) -> tuple[int, int]:
        value = self._get("crop_size")
        if isinstance(value, Mapping):
            return self._sides("crop_size", value)
        side = self._side("crop_size", value)
        return side, side

    def _size(self, crop: tuple[int, int]) -> int | tuple[int, int]:
        if self._family == "vjepa2":
            # The processor computes the edge from the crop and ignores the file's size.
            return int(crop[0] * 256 / 224)
        value = self._get("size")
        if not isinstance(value, Mapping):
            return self._side("size", value)
        given = {name for name, side in value.items() if side is not None}
        if given == {"shortest_edge"}:
            return self._side("size", value["shortest_edge"])
        return self._sides("size", value)

    def _sides(self, name: str, value: Mapping[str, Any]) -> tuple[int, int]:
        if {key for key, side in value.items() if side is not None} != {"height", "width"}:
            raise self._wrong(name, "it must be a shortest_edge, or a height and a width")
        return self._side(name, value["height"]), self._side(name, value["width"])

    def _side(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(name, "it must be a positive number of pixels")
        return value

    def _statistics(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Mean and deviation, for values from 0 to 1, that include rescaling and offset.

        The file asks for (x * factor - offset - mean) / std of a pixel x. This equals
        (x / 255 - (offset + mean) / scale) / (std / scale) with scale = 255 * factor.
        """
        factor = self._number("rescale_factor", 1 / 255) if self._switch("do_rescale") else 1.0
        offset = 1.0 if self._offset() else 0.0
        mean, std = (0.0,) * 3, (1.0,) * 3
        if self._switch("do_normalize"):
            mean, std = self._per_channel("image_mean"), self._per_channel("image_std")
        scale = 255 * factor
        if not offset and math.isclose(scale, 1.0, rel_tol=1e-9):
            return mean, std
        folded = [round((offset + value) / scale, 12) for value in mean]
        return _three(folded), _three([round(value / scale, 12) for value in std])

    def _offset(self) -> bool:
        """Whether 1 is subtracted, which only ViViT's processors do."""
        if self._family != "vivit":
            return False
        if "video_processor_type" in self._fields:
            return self._switch("do_rescale")
        offset = self._switch("offset")
        if offset and not self._switch("do_rescale"):
            raise self._wrong("offset", "it must be false if do_rescale is false")
        return offset

    def _number(self, name: str, default: float) -> float:
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._wrong(name, "it must be a number above 0")
        return float(value)

    def _per_channel(self, name: str) -> tuple[float, float, float]:
        value = self._get(name)
        values = [value] * 3 if isinstance(value, int | float) else value
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise self._wrong(name, "it must be three numbers")
        if not all(isinstance(one, int | float) and math.isfinite(one) for one in values):
            raise self._wrong(name, "it must be three numbers")
        if name == "image_std" and not all(values):
            raise self._wrong(name, "it must not be 0")
        return _three(values)


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = values
    return first, second, third
