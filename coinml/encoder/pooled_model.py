"""A model of transformers with the pooling of its tokens, as one torch module."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from coinml.encoder.architectures import Architecture


class PooledModel(torch.nn.Module):
    """Turns normalised pixels into vectors.

    Args:
        model: A model of transformers.
        architecture: Its family.
        norm: Applied to the pooled tokens, if given.
        class_token: Take the first token instead of the mean of all.
    """

    def __init__(
        self,
        model: Any,
        architecture: Architecture,
        *,
        norm: torch.nn.Module | None,
        class_token: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.norm = norm
        self._input_name = architecture.input_name
        self._options = dict(architecture.call_options)
        self._class_token = class_token

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Turn pixels in the model's dtype, (N, frames, 3, height, width), into float32 (N, D)."""
        tokens = self.model(**{self._input_name: pixels}, **self._options).last_hidden_state
        if self._class_token:
            pooled = tokens[:, 0].float()
        else:
            pooled = tokens.mean(dim=1, dtype=torch.float32)
        vectors: torch.Tensor = pooled if self.norm is None else self.norm(pooled)
        return vectors

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The encoder's layers, which have one shape."""
        # V-JEPA 2's predictor has layers too, behind the encoder's.
        return next(one for one in self.modules() if isinstance(one, torch.nn.ModuleList))

    def first_layer(self, pixels: torch.Tensor) -> tuple[FirstLayer, torch.Tensor]:
        """The first of the layers as a model of its own, which shares its weights with this one.

        Args:
            pixels: As `forward` takes them.

        Returns:
            The model, and what it is given for these pixels: (N, tokens, D).
        """
        given: list[tuple[Any, ...]] = []

        def keep(_: torch.nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            given.append((*inputs, options))
            raise _GivenError

        hook = self.layers[0].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with torch.no_grad(), contextlib.suppress(_GivenError):
                self(pixels)
        finally:
            hook.remove()
        ((states, *inputs, options),) = given
        return FirstLayer(self.layers[0], inputs, options), states


class FirstLayer(torch.nn.Module):
    """Turns hidden states, (N, tokens, D), into the mean of one layer's tokens, float32 (N, D).

    Args:
        layer: The layer.
        inputs: What it is given besides the hidden states.
        options: Likewise, by name.
    """

    def __init__(
        self, layer: torch.nn.Module, inputs: Sequence[Any], options: Mapping[str, Any]
    ) -> None:
        super().__init__()
        self.model = layer
        self._inputs = tuple(inputs)
        self._options = dict(options)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Turn hidden states in the layer's dtype into vectors."""
        found = self.model(states, *self._inputs, **self._options)
        tokens: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return tokens.mean(dim=1, dtype=torch.float32)


class _GivenError(Exception):
    """The first layer has been given its input: the rest of the model is not run."""
