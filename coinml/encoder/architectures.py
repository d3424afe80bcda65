"""The families of frozen video encoders: how each is loaded, fed and read.

An adapter is a row of `ARCHITECTURES`: what its configuration calls things, which of transformers'
classes it is, and how its tokens become one vector. Nothing is loaded to know this.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from coinml.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One family of encoders.

    Attributes:
        model_class: Its class in transformers.
        defaults: What its configuration means where it leaves a field out.
        input_name: Name of the model's input, (batch, frames, 3, height, width).
        frames_field: The configuration's name for the number of frames a clip.
        any_frames: Whether other numbers of frames than that are as good.
        size_field: The configuration's name for the side of a frame in pixels.
        any_size: Whether it takes frames of another size.
        channels_field: The configuration's name for the number of colours.
        class_token: Whether its first token stands for the clip, as its classifier reads it.
        hides_tokens: Whether it can be fed a part of the tokens (`bool_masked_pos`).
        attention: transformers' name of the implementation.
        load_options: For the class's `from_pretrained`.
        call_options: For the model's forward.
        bare: Whether it is taken without a processor file, with ImageNet's statistics.
    """

    model_class: str
    defaults: Mapping[str, Any]
    input_name: str = "pixel_values"
    frames_field: str = "num_frames"
    any_frames: bool = False
    size_field: str = "image_size"
    any_size: bool = False
    channels_field: str = "num_channels"
    class_token: bool = False
    hides_tokens: bool = False
    attention: str = "sdpa"
    load_options: Mapping[str, Any] = field(default_factory=dict)
    call_options: Mapping[str, Any] = field(default_factory=dict)
    bare: bool = False

    def frames(self, config: Mapping[str, Any], wanted: int | None = None) -> int:
        """Number of frames a clip.

        Raises:
            InvalidInputError: It does not take so many.
        """
        own = _whole(config, self.frames_field)
        if wanted is None or wanted == own:
            return own
        if not self.any_frames:
            raise InvalidInputError(f"it takes clips of {own} frames, not {wanted}")
        step = self._cell(config)[0]
        if wanted < step or wanted % step:
            raise InvalidInputError(f"it takes clips of a multiple of {step} frames, not {wanted}")
        return wanted

    def size(self, config: Mapping[str, Any]) -> tuple[int, int]:
        """Size of a frame as (height, width) in pixels."""
        return _pair(config, self.size_field)

    def grid(self, config: Mapping[str, Any], frames: int) -> tuple[int, int]:
        """Number of tokens along the time and in one place of it, without a class token."""
        step, cell_height, cell_width = self._cell(config)
        height, width = self.size(config)
        return max(1, frames // step), (height // cell_height) * (width // cell_width)

    def pooling(self, config: Mapping[str, Any], tensor_names: Collection[str]) -> str:
        """How its tokens become one vector; see `EncoderSpec`."""
        if self.class_token:
            return "layernorm+cls"
        if not config.get("use_mean_pooling"):
            return "layernorm+mean"
        return "mean+fc_norm" if "fc_norm.weight" in tensor_names else "mean"

    def _cell(self, config: Mapping[str, Any]) -> tuple[int, int, int]:
        """Frames, height and width that one token stands for."""
        tubelet = config.get("tubelet_size", 1)
        if isinstance(tubelet, list | tuple):
            if len(tubelet) != 3:
                raise InvalidInputError(f"tubelet_size is {tubelet}; it must be three numbers")
            step, height, width = (int(side) for side in tubelet)
            return step, height, width
        return int(tubelet), *_pair(config, "patch_size")


ARCHITECTURES: Mapping[str, Architecture] = {
    "videomae": Architecture(
        model_class="VideoMAEModel",
        defaults={
            "num_frames": 16,
            "image_size": 224,
            "patch_size": 16,
            "tubelet_size": 2,
            "hidden_size": 768,
            "use_mean_pooling": True,
        },
        hides_tokens=True,
        bare=True,
    ),
    "vjepa2": Architecture(
        model_class="VJEPA2Model",
        defaults={
            "frames_per_clip": 64,
            "crop_size": 256,
            "patch_size": 16,
            "tubelet_size": 2,
            "hidden_size": 1024,
        },
        input_name="pixel_values_videos",
        frames_field="frames_per_clip",
        # Its positions are rotations, which have no length to be trained for.
        any_frames=True,
        size_field="crop_size",
        channels_field="in_chans",
        # The predictor is of use in pre-training only.
        call_options={"skip_predictor": True},
    ),
    "timesformer": Architecture(
        model_class="TimesformerModel",
        defaults={
            "num_frames": 8,
            "image_size": 224,
            "patch_size": 16,
            "hidden_size": 768,
        },
        any_size=True,
        class_token=True,
        attention="eager",
    ),
    "vivit": Architecture(
        model_class="VivitModel",
        defaults={
            "num_frames": 32,
            "image_size": 224,
            "tubelet_size": [2, 16, 16],
            "hidden_size": 768,
        },
        class_token=True,
        # Checkpoints that were trained to classify have no pooler: one would be random.
        load_options={"add_pooling_layer": False},
    ),
}
"""By the `model_type` of a checkpoint's configuration."""


def architecture_of(config: Mapping[str, Any], *, ref: str) -> Architecture:
    """The family that a checkpoint's configuration names.

    Args:
        config: The fields of its `config.json`.
        ref: The checkpoint as the user named it, for the message.

    Raises:
        InvalidInputError: It is not among those that are known.
    """
    found = ARCHITECTURES.get(str(config.get("model_type")))
    if found is None:
        raise InvalidInputError(
            f"encoder {ref!r}: is a {config.get('model_type')!r}; known: {', '.join(ARCHITECTURES)}"
        )
    if (colours := config.get(found.channels_field, 3)) != 3:
        raise InvalidInputError(
            f"encoder {ref!r}: {found.channels_field} is {colours!r}; it must be 3"
        )
    return found


def _whole(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"config.json: {name} is {value!r}; it must be a whole number")
    return value


def _pair(config: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = config.get(name)
    if isinstance(value, list | tuple) and len(value) == 2:
        first, second = ({name: side} for side in value)
        return _whole(first, name), _whole(second, name)
    return _whole(config, name), _whole(config, name)
