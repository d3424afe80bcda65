"""The attentive head: attention over a video's clips.

The mean over clips gives the clip that shows the task and the clip that shows the presenter the
same weight. Here a learnt query attends to the clips (one block, several heads), and its output is
classified together with the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def train_attentive(
    train: Samples,
    val: Samples,
    *,
    width: int = 256,
    attention_heads: int = 4,
    dropout: float = 0.3,
    epochs: int = 100,
    warmup_epochs: float = 2.0,
    patience: int = 15,
    lr: float = 1e-3,
    weight_decay: float = 1.0,
    batch_size: int = 128,
    label_smoothing: float = 0.1,
    class_weights: str = "none",
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> AttentiveHead:
    """Fit an attentive head and keep the epoch with the lowest validation loss.

    Args:
        train: The samples that it is fitted on, with clips.
        val: The samples by which the epoch is chosen.
        width: Width of the attention block.
        attention_heads: Number of attention heads; `width` is a multiple of it.
        dropout: Dropout probability of the block's output.
        epochs: Most epochs; the cosine schedule spans all of them.
        warmup_epochs: Epochs over which the learning rate first rises linearly.
        patience: Stop after this many epochs without a better validation loss.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled weight decay; biases have none.
        batch_size: Videos per step.
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: `none`, or `balanced`: each class has the same total weight.
        seed: Seed of initial weights, order and dropout.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        on_epoch: Called after each epoch; an exception that it raises ends the training.

    Raises:
        InvalidInputError: An option out of its range, samples without clips, or a video
            with none.
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
        mixup=0.0,
    )
    _check_network(width, attention_heads, dropout)
    clips = [_checked_clips(samples) for samples in (train, val)]
    place = find_device(device)
    generator, noise = generators(seed, place)
    count, dim = clips[0].shape[1:]
    network = _Network(
        dim=dim,
        clips=count,
        width=width,
        heads=attention_heads,
        classes=len(train.classes),
        dropout=dropout,
        noise=noise,
    )
    network.reset(generator)
    mean, scale = standard(clips[0].reshape(-1, dim))
    network.mean.copy_(mean)
    network.scale.copy_(scale)
    network.to(place)
    # Clips stay in float16, as the set has them: 11,827 videos of 8 clips take 145 MB.
    data = [
        (torch.tensor(x, device=place), torch.tensor(samples.y, device=place))
        for x, samples in zip(clips, (train, val), strict=True)
    ]
    best = fit_network(network, data[0], data[1], schedule, generator=generator, on_epoch=on_epoch)
    return AttentiveHead(network.to("cpu"), tuple(train.classes), best_epoch=best)


def check_values(options: Mapping[str, Any]) -> None:
    """Check the values of all options of `train_attentive`."""
    check_schedule(options)
    _check_network(options["width"], options["attention_heads"], options["dropout"])


class AttentiveHead(NetworkHead["_Network"]):
    """A trained attentive head: embeddings of a video's clips in, class probabilities out."""

    kind = "attentive"
    takes_clips = True

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return int(self._network.mean.shape[0])

    @property
    def clips(self) -> int:
        """Most clips per video."""
        return int(self._network.place.shape[0])

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 (N, C), for clips (N, K, D); missing clips are NaN.

        Raises:
            InvalidInputError: The shape is not one that it was trained on.
        """
        if x.ndim != 3 or x.shape[1] > self.clips or x.shape[2] != self.dim:
            raise InvalidInputError(
                f"clips of shape {x.shape}: (videos, up to {self.clips}, {self.dim}) are needed"
            )
        with torch.inference_mode():
            # Rounded to float16, as in the embedding set and in training.
            scores = self._network(torch.tensor(np.asarray(x, dtype=np.float16)))
            return np.asarray(functional.softmax(scores, dim=1).numpy())

    def _shape(self) -> dict[str, Any]:
        network = self._network
        return {
            "dim": self.dim,
            "clips": self.clips,
            "width": network.width,
            "heads": network.heads,
        }

    @classmethod
    def _built(cls, shape: dict[str, Any]) -> _Network:
        sizes = {name: shape[name] for name in ("dim", "clips", "width", "heads")}
        return _Network(**sizes, classes=len(shape["classes"]))


def _check_network(width: int, attention_heads: int, dropout: float) -> None:
    check_dropout(dropout)
    if attention_heads < 1 or width < 1 or width % attention_heads:
        raise InvalidInputError(
            f"width {width} is not a multiple of attention_heads {attention_heads}"
        )


def _draw_options(trial: Trial) -> dict[str, Any]:
    return {
        "width": trial.suggest_categorical("width", [64, 128, 256, 512]),
        "attention_heads": trial.suggest_categorical("attention_heads", [1, 2, 4, 8]),
        "dropout": trial.suggest_float("dropout", 0.0, 0.7),
        "lr": trial.suggest_float("lr", 2e-4, 5e-3, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-2, 10.0, log=True),
        "label_smoothing": trial.suggest_float("label_smoothing", 0.0, 0.3),
    }


SEARCH_SPACE = SearchSpace(
    _draw_options,
    {
        "width": 256,
        "attention_heads": 4,
        "dropout": 0.3,
        "lr": 1e-3,
        "weight_decay": 1.0,
        "label_smoothing": 0.1,
    },
)


class _Network(nn.Module):
    """One cross-attention block with a learnt query, and a linear skip connection from the mean."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        dim: int,
        clips: int,
        width: int,
        heads: int,
        classes: int,
        dropout: float = 0.0,
        noise: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self._dropout, self.noise = dropout, noise
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        # Uninitialised on purpose: torch's own initialisation would draw from global state.
        self.project = nn.Parameter(torch.empty(width, dim))
        self.place = nn.Parameter(torch.empty(clips, width))
        self.query = nn.Parameter(torch.empty(1, width))
        self.keys = nn.Parameter(torch.empty(width, width))
        self.values = nn.Parameter(torch.empty(width, width))
        self.mix = nn.Parameter(torch.empty(width, width))
        self.output = nn.Parameter(torch.empty(classes, width))
        self.shortcut = nn.Parameter(torch.zeros(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))
        self.gains = nn.Parameter(torch.ones(2 * width))
        self.shifts = nn.Parameter(torch.zeros(2 * width))

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial weights; the skip connection starts at zero."""
        for weight in (self.project, self.keys, self.values, self.mix):
            nn.init.xavier_uniform_(weight, generator=generator)
        for weight in (self.place, self.query, self.output):
            nn.init.normal_(weight, std=0.02, generator=generator)

    def forward(self, clips: Tensor) -> Tensor:
        """Scores (B, C) of clips (B, K, D); missing clips are NaN."""
        present = ~torch.isnan(clips[..., 0])
        x = (torch.nan_to_num(clips).float() - self.mean) / self.scale * present[..., None]
        count = present.sum(dim=1, keepdim=True).clamp(min=1)
        h = linear(x, self.project) + self.place[: x.shape[1]]
        h = self._norm(h, 0)
        gathered = self._attend(h, present)
        gathered = gathered + functional.relu(linear(gathered, self.mix))
        gathered = self._norm(gathered, 1)
        if self.training:
            gathered = drop(gathered, self._dropout, self.noise)
        average = x.sum(dim=1) / count
        return linear(gathered, self.output, self.bias) + linear(average, self.shortcut)

    def _attend(self, h: Tensor, present: Tensor) -> Tensor:
        """The attention's output (B, W) over the present clips of (B, K, W)."""
        batch, clips, width = h.shape
        split = (batch, clips, self.heads, width // self.heads)
        keys, values = (
            linear(h, weight).view(split).transpose(1, 2) for weight in (self.keys, self.values)
        )
        query = self.query.view(1, self.heads, 1, -1).expand(batch, -1, -1, -1)
        found = functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=present[:, None, None, :]
        )
        return found.transpose(1, 2).reshape(batch, width)

    def _norm(self, h: Tensor, which: int) -> Tensor:
        part = slice(which * self.width, (which + 1) * self.width)
        return functional.layer_norm(h, (self.width,), self.gains[part], self.shifts[part])


def _checked_clips(samples: Samples) -> npt.NDArray[np.float16]:
    if samples.clips is None:
        raise InvalidInputError("the attentive head takes clips, and these samples have none")
    absent = np.isnan(samples.clips)
    if (absent.all(axis=2) != absent.any(axis=2)).any() or np.isinf(samples.clips).any():
        raise InvalidInputError("embeddings of clips have values that are not finite")
    nothing = absent.all(axis=(1, 2))
    if nothing.any():
        raise InvalidInputError(f"no clip of {samples.ids[int(nothing.argmax())]!r} is embedded")
    return samples.clips
