"""A model of transformers with the pooling of its tokens, as one torch module."""

from __future__ import annotations

import copy
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

    def first_layer(self) -> PooledModel:
        """A copy of this model with only the first of its layers."""
        layers = self.layers
        # `deepcopy` takes what is in its memo for a copy that is there already.
        return copy.deepcopy(self, {id(layers): torch.nn.ModuleList([copy.deepcopy(layers[0])])})
