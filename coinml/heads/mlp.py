"""The MLP head: three layers on standardised embeddings, with a linear skip connection.

The skip connection (one linear layer from input to output) makes the MLP at least a logistic
regression: where classes differ in directions of little variance, the hidden layers alone would
memorise the training videos before they find these directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.heads.linear import linear
from coinml.heads.network import NetworkHead
from coinml.heads.search_space import SearchSpace, Trial
from coinml.heads.training_loop import (
    EpochMetrics,
    Schedule,
    check_dropout,
    check_schedule,
    drop,
    fit_network,
    generators,
    standard,
)
from coinml.runtime.devices import find_device

__all__ = ["EpochMetrics", "MLPHead", "train_mlp"]


def train_mlp(
    train: Samples,
    val: Samples,
    *,
    hidden: Sequence[int] = (512, 256),
    shortcut: bool = True,
    dropout: float = 0.4,
    epochs: int = 100,
    warmup_epochs: float = 1.0,
    patience: int = 15,
    lr: float = 1e-3,
    weight_decay: float = 1.0,
    batch_size: int = 128,
    label_smoothing: float = 0.1,
    mixup: float = 0.4,
    class_weights: str = "none",
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> MLPHead:
    """Fit an MLP and keep the epoch with the lowest validation loss.

    Args:
        train: The samples that it is fitted on.
        val: The samples by which the epoch is chosen.
        hidden: Widths of the hidden layers.
        shortcut: Add a linear skip connection from input to output.
        dropout: Dropout probability of hidden units.
        epochs: Most epochs; the cosine schedule spans all of them.
        warmup_epochs: Epochs over which the learning rate first rises linearly.
        patience: Stop after this many epochs without a better validation loss.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled weight decay; biases have none.
        batch_size: Videos per step.
        label_smoothing: Share of the target that is spread over all classes.
        mixup: Alpha of mixup's Beta distribution; 0 turns mixup off.
            Source: Zhang et al. (2018), mixup: beyond empirical risk minimization.
        class_weights: `none`, or `balanced`: each class has the same total weight.
        seed: Seed of initial weights, order, mixup and dropout.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        on_epoch: Called after each epoch; an exception that it raises ends the training.

    Raises:
        InvalidInputError: An option out of its range, or data that is not finite.
    """
    schedule = Schedule(
        epochs=epochs,
        warmup_epochs=warmup_epochs,
        patience=patience,
        lr=lr,
        weight_decay=weight_decay,
        batch_size=batch_size,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        mixup=mixup,
    )
    _check_network(hidden, dropout)
    if not (np.isfinite(train.x).all() and np.isfinite(val.x).all()):
        raise InvalidInputError("embeddings have values that are not finite")
    place = find_device(device)
    generator, noise = generators(seed, place)
    widths = [train.x.shape[1], *hidden, len(train.classes)]
    network = _Network(widths, shortcut=shortcut, dropout=dropout, noise=noise)
    network.reset(generator)
    mean, scale = standard(train.x)
    network.mean.copy_(mean)
    network.scale.copy_(scale)
    network.to(place)
    # Copied, since a table's arrays may be read-only, and torch would warn.
    data = [
        (
            network.standardised(torch.tensor(part.x, device=place)),
            torch.tensor(part.y, device=place),
        )
        for part in (train, val)
    ]
    best = fit_network(network, data[0], data[1], schedule, generator=generator, on_epoch=on_epoch)
    return MLPHead(network.to("cpu"), tuple(train.classes), best_epoch=best)


def check_values(options: Mapping[str, Any]) -> None:
    """Check the values of all options of `train_mlp`."""
    check_schedule(options)
    _check_network(options["hidden"], options["dropout"])


class MLPHead(NetworkHead["_Network"]):
    """A trained MLP: embeddings in, class probabilities out."""

    kind = "mlp"
    takes_clips = False

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return self._network.widths[0]

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C), for embeddings of shape (N, D)."""
        with torch.inference_mode():
            given = torch.tensor(np.asarray(x, dtype=np.float32))
            scores = self._network(self._network.standardised(given))
            return np.asarray(functional.softmax(scores, dim=1).numpy())

    def _shape(self) -> dict[str, Any]:
        return {"widths": self._network.widths, "shortcut": self._network.shortcut is not None}

    @classmethod
    def _built(cls, shape: dict[str, Any]) -> _Network:
        return _Network(shape["widths"], shortcut=shape["shortcut"])


def _check_network(hidden: Sequence[int], dropout: float) -> None:
    if min(hidden, default=1) < 1:
        raise InvalidInputError(f"hidden is {list(hidden)}; widths of 1 or more are allowed")
    check_dropout(dropout)


def _draw_options(trial: Trial) -> dict[str, Any]:
    width = trial.suggest_categorical("width", [256, 512, 1024])
    return {
        "hidden": [width, width // 2],
        "shortcut": trial.suggest_categorical("shortcut", [True, False]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "lr": trial.suggest_float("lr", 2e-4, 5e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-2, 10.0, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.3),
        "mixup": trial.suggest_float("mixup", 0.0, 1.0),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128, 256]),
    }


SEARCH_SPACE = SearchSpace(
    _draw_options,
    {
        "width": 512,
        "shortcut": True,
        "dropout": 0.4,
        "lr": 1e-3,
        "weight_decay": 1.0,
        "label_smoothing": 0.1,
        "mixup": 0.4,
        "batch_size": 128,
    },
)


class _Network(nn.Module):
    """Hidden layers with ReLU and dropout, a linear output, and the linear skip connection."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        widths: Sequence[int],
        *,
        shortcut: bool,
        dropout: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.widths = list(widths)
        self._dropout = dropout
        self.noise = noise
        self.register_buffer("mean", torch.zeros(widths[0]))
        self.register_buffer("scale", torch.ones(widths[0]))
        # Uninitialised on purpose: torch's own initialisation would draw from global state.
        pairs = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(fan_out, fan_in) for fan_in, fan_out in pairs)
        self.biases = nn.ParameterList(torch.zeros(fan_out) for _, fan_out in pairs)
        straight = torch.zeros(widths[-1], widths[0]) if shortcut else None
        self.shortcut = None if straight is None else nn.Parameter(straight)

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial weights; the skip connection starts at zero.

        The output layer's weights are small, so that training starts from nearly equal
        probabilities.

        Source: He et al. (2015), Delving deep into rectifiers (layers before a ReLU).
        """
        *hidden, output = self.weights
        for weight in hidden:
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        nn.init.normal_(output, std=0.01, generator=generator)

    def standardised(self, x: Tensor) -> Tensor:
        """Standardised embeddings, which `forward` takes; computed once for all epochs."""
        return (x - self.mean) / self.scale

    def forward(self, x: Tensor) -> Tensor:
        h = x
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = linear(h, weight, bias)
            if i < last:
                h = functional.relu(h)
                h = drop(h, self._dropout, self.noise) if self.training else h
        return h if self.shortcut is None else h + linear(x, self.shortcut)
