"""The supported families of video encoders: their classes, configuration fields and pooling.

A family is a row of `ARCHITECTURES`: its class in transformers, the names of its configuration's
fields, and how its tokens are pooled into one vector. This module imports neither torch nor
transformers.
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
        model_class: Name of the model's class in transformers.
        defaults: Values of the configuration's fields that a checkpoint may leave out.
        input_name: Name of the model's input, (batch, frames, 3, height, width).
        frames_field: Configuration field with the number of frames per clip.
        variable_frames: Whether the model accepts other numbers of frames.
        size_field: Configuration field with the side of a frame in pixels.
        variable_size: Whether the model accepts frames of other sizes.
        channels_field: Configuration field with the number of colour channels.
        class_token: Whether the first token represents the clip, as for the family's classifier.
        supports_masking: Whether the model can run on a subset of the tokens
            (`bool_masked_pos`).
        attention: transformers' name of the attention implementation.
        load_options: Arguments for the class's `from_pretrained`.
        call_options: Arguments for the model's forward.
        processor_optional: Whether a checkpoint without a processor file is loaded, with
            ImageNet's statistics.
    """

    model_class: str
    defaults: Mapping[str, Any]
    input_name: str = "pixel_values"
    frames_field: str = "num_frames"
    variable_frames: bool = False
    size_field: str = "image_size"
    variable_size: bool = False
    channels_field: str = "num_channels"
    class_token: bool = False
    supports_masking: bool = False
    attention: str = "sdpa"
    load_options: Mapping[str, Any] = field(default_factory=dict)
    call_options: Mapping[str, Any] = field(default_factory=dict)
    processor_optional: bool = False

    def frames(self, config: Mapping[str, Any], wanted: int | None = None) -> int:
        """Number of frames per clip: the wanted number, or the configuration's own if None.

        Raises:
            InvalidInputError: The model does not accept that number.
        """
        own = _positive_integer(config, self.frames_field)
        if wanted is None or wanted == own:
            return own
        if not self.variable_frames:
            raise InvalidInputError(f"it accepts clips of {own} frames, not {wanted}")
        step = self._tubelet(config)[0]
        if wanted < step or wanted % step:
            raise InvalidInputError(
                f"the model accepts clips of a multiple of {step} frames, not {wanted}"
            )
        return wanted

    def dim(self, config: Mapping[str, Any]) -> int:
        """Length of a vector.

        Raises:
            InvalidInputError: The width is not a multiple of the number of attention heads.
        """
        width = _positive_integer(config, "hidden_size")
        if width % _positive_integer(config, "num_attention_heads"):
            raise InvalidInputError(
                f"config.json: num_attention_heads is {config['num_attention_heads']}; it must be "
                f"a divisor of hidden_size, which is {width}"
            )
        return width

    def size(self, config: Mapping[str, Any]) -> tuple[int, int]:
        """Size of a frame as (height, width) in pixels."""
        return _pair(config, self.size_field)

    def grid(self, config: Mapping[str, Any], frames: int) -> tuple[int, int, int]:
        """Number of token positions: in time, rows and columns, without a class token."""
        step, patch_height, patch_width = self._tubelet(config)
        height, width = self.size(config)
        return max(1, frames // step), height // patch_height, width // patch_width

    def pooling(self, config: Mapping[str, Any], tensor_names: Collection[str]) -> str:
        """How the tokens are pooled into one vector; see `EncoderSpec`."""
        if self.class_token:
            return "layernorm+cls"
        if not config.get("use_mean_pooling"):
            return "layernorm+mean"
        return "mean+fc_norm" if "fc_norm.weight" in tensor_names else "mean"

    def _tubelet(self, config: Mapping[str, Any]) -> tuple[int, int, int]:
        """Number of frames, height and width in pixels of one token's tubelet."""
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
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "use_mean_pooling": True,
        },
        supports_masking=True,
        processor_optional=True,
    ),
    "vjepa2": Architecture(
        model_class="VJEPA2Model",
        defaults={
            "frames_per_clip": 64,
            "crop_size": 256,
            "patch_size": 16,
            "tubelet_size": 2,
            "hidden_size": 1024,
            "mlp_ratio": 4.0,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
            "qkv_bias": True,
        },
        input_name="pixel_values_videos",
        frames_field="frames_per_clip",
        # Rotary position embeddings are not tied to the number of frames in training.
        variable_frames=True,
        size_field="crop_size",
        channels_field="in_chans",
        # The predictor is used in pre-training only.
        call_options={"skip_predictor": True},
    ),
    "timesformer": Architecture(
        model_class="TimesformerModel",
        defaults={
            "num_frames": 8,
            "image_size": 224,
            "patch_size": 16,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
            "qkv_bias": True,
            "attention_type": "divided_space_time",
        },
        variable_size=True,
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
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "hidden_act": "gelu_fast",
            "layer_norm_eps": 1e-6,
            "qkv_bias": True,
        },
        class_token=True,
        # Classification checkpoints have no pooler; transformers would add a random one.
        load_options={"add_pooling_layer": False},
    ),
}
"""The families by the `model_type` of a checkpoint's configuration."""


def architecture_of(config: Mapping[str, Any], *, ref: str) -> Architecture:
    """The family of a checkpoint.

    Args:
        config: The fields of its `config.json`.
        ref: The checkpoint as the user named it, for the message.

    Raises:
        InvalidInputError: The family is not supported, or the model does not take RGB frames.
    """
    found = ARCHITECTURES.get(str(config.get("model_type")))
    if found is None:
        raise InvalidInputError(
            f"encoder {ref!r}: model_type is {config.get('model_type')!r}; "
            f"known: {', '.join(ARCHITECTURES)}"
        )
    if (channels := config.get(found.channels_field, 3)) != 3:
        raise InvalidInputError(
            f"encoder {ref!r}: {found.channels_field} is {channels!r}; it must be 3"
        )
    return found


def _positive_integer(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInputError(f"config.json: {name} is {value!r}; it must be a positive integer")
    return value


def _pair(config: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = config.get(name)
    if isinstance(value, list | tuple) and len(value) == 2:
        first, second = ({name: side} for side in value)
        return _positive_integer(first, name), _positive_integer(second, name)
    return _positive_integer(config, name), _positive_integer(config, name)
