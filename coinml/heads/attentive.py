"""The attentive head: looks at a video's clips one by one and weighs them.

The mean over clips treats the clip that shows the task and the one that shows the presenter
alike. Here a learnt query attends to the clips (several heads, one block), and what it gathers
is classified together with the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from coinml.embedding_sets.table import Samples
from coinml.errors import InvalidInputError
from coinml.heads.network import NetworkHead
from coinml.heads.search_space import SearchSpace, Trial
from coinml.heads.training_loop import (
    EpochMetrics,
    Schedule,
    check_dropout,
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
        train: What it learns from; its `clips` are looked at.
        val: What stops it.
        width: Of the attention block.
        attention_heads: Its heads; `width` is a multiple of it.
        dropout: Share of what the block puts out that is left out in training.
        epochs: At most this many; the cosine schedule is laid out for all of them.
        warmup_epochs: The learning rate first rises over so many.
        patience: Stop after this many epochs without a better validation loss.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled decay, on weights and not on biases.
        batch_size: Videos a step.
        label_smoothing: Share of the target spread over all classes.
        class_weights: `none`, or `balanced`: a rare class counts as much as a frequent one.
        seed: Of initial weights, order and dropout.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        on_epoch: Called after each epoch; what it raises ends the training.

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
    check_dropout(dropout)
    if attention_heads < 1 or width < 1 or width % attention_heads:
        raise InvalidInputError(
            f"width {width} with attention_heads {attention_heads}: a multiple of it is allowed"
        )
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
    # As float16, which is what they are: 11,827 videos of 8 clips take 145 MB.
    data = [
        (torch.tensor(x, device=place), torch.tensor(samples.y, device=place))
        for x, samples in zip(clips, (train, val), strict=True)
    ]
    best = fit_network(network, data[0], data[1], schedule, generator=generator, on_epoch=on_epoch)
    return AttentiveHead(network.to("cpu"), tuple(train.classes), best_epoch=best)


class AttentiveHead(NetworkHead["_Network"]):
    """A trained attentive head: a video's clips in, class probabilities out."""

    kind = "attentive"
    takes_clips = True

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return int(self._network.mean.shape[0])

    @property
    def clips(self) -> int:
        """Clips a video at most."""
        return int(self._network.place.shape[0])

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 (N, C), for clips (N, K, D); an absent one is NaN.

        Raises:
            InvalidInputError: Another shape than what it was trained on.
        """
        if x.ndim != 3 or x.shape[1] > self.clips or x.shape[2] != self.dim:
            raise InvalidInputError(
                f"clips of shape {x.shape}: (videos, up to {self.clips}, {self.dim}) are needed"
            )
        with torch.inference_mode():
            # Through float16, as the set keeps them and training saw them.
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
    """One cross-attention block with a learnt query, and a straight way from the mean clip."""

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
        self._dropout, self._noise = dropout, noise
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
        """Draw initial weights; the straight way begins at zero."""
        for weight in (self.project, self.keys, self.values, self.mix):
            nn.init.xavier_uniform_(weight, generator=generator)
        for weight in (self.place, self.query, self.output):
            nn.init.normal_(weight, std=0.02, generator=generator)

    def forward(self, clips: Tensor) -> Tensor:
        """Scores (B, C) of clips (B, K, D), where a clip that is not there is NaN."""
        there = ~torch.isnan(clips[..., 0])
        x = (torch.nan_to_num(clips).float() - self.mean) / self.scale * there[..., None]
        seen = there.sum(dim=1, keepdim=True).clamp(min=1)
        h = functional.linear(x, self.project) + self.place[: x.shape[1]]
        h = self._norm(h, 0)
        gathered = self._attend(h, there)
        gathered = gathered + functional.relu(functional.linear(gathered, self.mix))
        gathered = self._norm(gathered, 1)
        if self.training:
            gathered = drop(gathered, self._dropout, self._noise)
        average = x.sum(dim=1) / seen
        return functional.linear(gathered, self.output, self.bias) + functional.linear(
            average, self.shortcut
        )

    def _attend(self, h: Tensor, there: Tensor) -> Tensor:
        """What the query gathers from clips (B, K, W), where they are there: (B, W)."""
        batch, clips, width = h.shape
        split = (batch, clips, self.heads, width // self.heads)
        keys, values = (
            functional.linear(h, weight).view(split).transpose(1, 2)
            for weight in (self.keys, self.values)
        )
        query = self.query.view(1, self.heads, 1, -1).expand(batch, -1, -1, -1)
        found = functional.scaled_dot_product_attention(
            query, keys, values, attn_mask=there[:, None, None, :]
        )
        return found.transpose(1, 2).reshape(batch, width)

    def _norm(self, h: Tensor, which: int) -> Tensor:
        part = slice(which * self.width, (which + 1) * self.width)
        return functional.layer_norm(h, (self.width,), self.gains[part], self.shifts[part])


def _checked_clips(samples: Samples) -> npt.NDArray[np.float16]:
    if samples.clips is None:
        raise InvalidInputError("the attentive head looks at clips, and these samples have none")
    absent = np.isnan(samples.clips)
    if (absent.all(axis=2) != absent.any(axis=2)).any() or np.isinf(samples.clips).any():
        raise InvalidInputError("embeddings of clips hold values that are not finite")
    nothing = absent.all(axis=(1, 2))
    if nothing.any():
        raise InvalidInputError(f"no clip of {samples.ids[int(nothing.argmax())]!r} is embedded")
    return samples.clips
