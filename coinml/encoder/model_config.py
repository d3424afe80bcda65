"""What of a checkpoint's configuration reaches the model, and what of that the spec records.

The spec of an encoder has fields for the weights, frames, size, width and pooling. `unusual_fields`
are the others that could change its vectors, so far as they differ from what the family's published
checkpoints have: an ordinary checkpoint has none, and a spec names them after the model type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any

from coinml.encoder.architectures import Architecture
from coinml.errors import InvalidInputError

_REFUSED: Mapping[str, str] = {
    "transformers_weights": "names another file of weights",
    "auto_map": "names code outside transformers",
    "quantization_config": "replaces the model's layers by quantized ones",
    "fusion_config": "replaces the model's layers by fused ones",
    "distributed_config": "distributes the model over devices",
    "pruned_heads": "removes attention heads",
}
"""Fields with which the model would not be that of the family and the checkpoint's own weights."""

_LEFT_OUT = frozenset(
    {
        # Descriptions, data type and form of the output; the encoder chooses the latter two.
        *("architectures", "model_type", "transformers_version", "name_or_path"),
        *("id2label", "label2id", "num_labels", "problem_type", "finetuning_task"),
        *("dtype", "torch_dtype", "attn_implementation", "experts_implementation"),
        *("return_dict", "use_return_dict", "output_attentions", "output_hidden_states"),
        *("chunk_size_feed_forward", "is_encoder_decoder", "gradient_checkpointing"),
        *("loss_type", "task_specific_params", "use_cache", "tie_word_embeddings"),
        # Of earlier versions of the families' classes, which no longer read them.
        *("video_size", "use_SiLU", "wide_SiLU", "is_causal"),
    }
)
"""Fields that are not given to the model at all."""

_WITHOUT_EFFECT = re.compile(
    # Training, or parts of the model that are not run.
    r"initializer_range|norm_pix_loss|num_pooler_layers|drop_path_rate|attention_dropout"
    r"|(hidden|attention_probs)_dropout_prob|(decoder|pred|pooler)_\w+"
)
_IN_SPEC = frozenset({"hidden_size", "use_mean_pooling"})
"""Fields that `EncoderSpec` has as `dim` and `pooling`, like frames, channels and size."""

_IN_SHAPES = frozenset({"intermediate_size", "mlp_ratio", "patch_size", "tubelet_size"})
"""Fields that the shapes of the weights determine: with another value the weights do not load."""

_HEADS: Mapping[int, int] = {384: 16, 1280: 16}
"""Number of attention heads of published checkpoints by their width, where it is not width / 64."""

_SMALL = 192
"""Below this width, which no published checkpoint has, a head of 32 columns is usual."""

_LAYER = re.compile(r"(?:^|\.)encoder\.layers?\.(\d+)\.")


def model_fields(config: Mapping[str, Any], *, ref: str) -> dict[str, Any]:
    """The fields of a checkpoint's configuration that its model is made from.

    Args:
        config: The fields of its `config.json`.
        ref: The checkpoint as the user named it, for the message.

    Raises:
        InvalidInputError: A field asks for other weights, other code or other layers.
    """
    for name, effect in _REFUSED.items():
        if config.get(name):
            raise InvalidInputError(
                f"encoder {ref!r}: config.json: {name} is {config[name]!r}, which {effect}; "
                "remove the field or save the model without it"
            )
    return {
        name: value
        for name, value in config.items()
        if name not in _LEFT_OUT and name not in _REFUSED and not name.startswith("_")
    }


def unusual_fields(
    config: Mapping[str, Any], architecture: Architecture, tensor_names: Collection[str]
) -> dict[str, Any]:
    """The fields that may change the vectors and differ from the family's published checkpoints.

    A field that is not known here is one of them, since a later transformers may read it.

    Args:
        config: Fields as of `model_fields`, with the family's defaults for missing ones.
        architecture: The family.
        tensor_names: Names of the tensors in the checkpoint's weights.
    """
    elsewhere = {
        *(architecture.frames_field, architecture.channels_field, architecture.size_field),
        *_IN_SPEC,
        *_IN_SHAPES,
    }
    usual = {
        **architecture.defaults,
        # VideoMAE's configuration had the first name, and has the second.
        **{"qkv_bias": True, "qv_bias": True},
        "num_hidden_layers": layers_in(tensor_names),
        "num_attention_heads": usual_heads(config["hidden_size"]),
    }
    return {
        name: value
        for name, value in config.items()
        if name not in elsewhere
        and not _WITHOUT_EFFECT.fullmatch(name)
        and not (name in usual and usual[name] == value)
    }


def described(model_type: str, unusual: Mapping[str, Any]) -> str:
    """A model type with its unusual fields in alphabetical order: 'videomae(hidden_act="relu")'."""
    fields = ", ".join(
        f"{name}={json.dumps(unusual[name], sort_keys=True)}" for name in sorted(unusual)
    )
    return f"{model_type}({fields})" if fields else model_type


def layers_in(tensor_names: Collection[str]) -> int:
    """Number of the encoder's layers that a checkpoint has weights of."""
    numbers = {int(found[1]) for name in tensor_names if (found := _LAYER.search(name))}
    return max(numbers, default=-1) + 1


def usual_heads(width: Any) -> int:
    """Number of attention heads that a model of this width usually has."""
    if not isinstance(width, int):
        return 0
    return max(2, width // 32) if width < _SMALL else _HEADS.get(width, width // 64)


def dropped_weights(unused: Collection[str], config: Mapping[str, Any]) -> list[str]:
    """Which of the tensors that a loaded model did not use change its vectors.

    Args:
        unused: Names of the unused tensors. Heads, decoders and predictors are no part of the
            encoder.
        config: The configuration. Weights of more layers than it has are not counted, since the
            spec records that there are fewer.
    """
    found = []
    for name in unused:
        inner = name.removeprefix(f"{config['model_type']}.")
        layer = _LAYER.search(inner)
        if (
            inner.startswith(("encoder.", "embeddings."))
            # Adds the same to a query's products with all keys, which the softmax removes.
            and not inner.endswith(".key.bias")
            and not (layer and int(layer[1]) >= config["num_hidden_layers"])
        ):
            found.append(name)
    return sorted(found)
