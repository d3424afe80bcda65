"""The training loop of the heads that are neural networks.

All data is on the device and batches are slices of it: for 9,030 x 768 values a DataLoader would
cost more than the arithmetic. All random numbers come from generators of the training's own, never
from torch's global state, so that trainings in threads of one process are reproducible bit by bit.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import macro_f1
from coinml.heads.batch_parts import BatchParts, PartLoss

logger = logging.getLogger(__name__)

CLASS_WEIGHTS = ("none", "balanced")
_MEASURED_AT_ONCE = 16384

MEASURED_TRAINING = 2048
"""Number of training videos measured after each epoch, drawn once. At COIN's size, measuring all of
them would take a quarter of the training time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics:
    """The metrics of one epoch, measured after it, without dropout and label smoothing.

    Attributes:
        epoch: From 1.
        train_loss: Mean cross-entropy in nats on the training videos, or on `MEASURED_TRAINING`
            of them; `val_loss` on all validation videos.
        train_accuracy: Share of correct answers; `val_accuracy` likewise.
        train_f1_macro: Macro-F1; `val_f1_macro` likewise.
        lr: Learning rate of the epoch's last step.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    train_f1_macro: float
    val_loss: float
    val_accuracy: float
    val_f1_macro: float
    lr: float

    def metrics(self) -> dict[str, float]:
        """The numbers by their MLflow names."""
        return {name: float(value) for name, value in asdict(self).items() if name != "epoch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The hyperparameters of the training loop.

    Attributes:
        epochs: Most epochs; the cosine schedule spans all of them.
        warmup_epochs: Epochs over which the learning rate first rises linearly.
        patience: Stop after this many epochs without a better validation loss.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled weight decay; biases have none.
        batch_size: Videos per step.
        label_smoothing: Share of the target that is spread over all classes.
        class_weights: `none`, or `balanced`: each class has the same total weight.
        mixup: Alpha of mixup's Beta distribution; 0 turns mixup off.
    """

    epochs: int
    warmup_epochs: float
    patience: int
    lr: float
    weight_decay: float
    batch_size: int
    label_smoothing: float
    class_weights: str
    mixup: float

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise InvalidInputError(f"{name} is {value}; 1 or more is allowed")
        for name in ("warmup_epochs", "weight_decay", "mixup"):
            if not (value := getattr(self, name)) >= 0:
                raise InvalidInputError(f"{name} is {value}; 0 or more is allowed")
        if not self.lr > 0:
            raise InvalidInputError(f"lr is {self.lr}; a positive number is allowed")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise InvalidInputError(
                f"label_smoothing is {self.label_smoothing}; 0 <= label_smoothing < 1 is allowed"
            )
        if self.class_weights not in CLASS_WEIGHTS:
            raise InvalidInputError(
                f"class_weights {self.class_weights!r}: allowed are {', '.join(CLASS_WEIGHTS)}"
            )

    def factor(self, step: int, steps_an_epoch: int) -> float:
        """The learning rate of a step, as a share of the peak."""
        steps, rising = self.epochs * steps_an_epoch, self.warmup_epochs * steps_an_epoch
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1.0 + math.cos(math.pi * min((step - rising) / max(steps - rising, 1), 1.0)))


def check_schedule(options: Mapping[str, Any]) -> None:
    """Check those of a head's options that are the training loop's.

    Raises:
        InvalidInputError: A value is out of its range.
    """
    Schedule(**{one.name: options.get(one.name, 0.0) for one in fields(Schedule)})


def fit_network(
    network: nn.Module,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    schedule: Schedule,
    *,
    generator: torch.Generator,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> int:
    """Train a network in place; afterwards it has the weights of its best epoch.

    The best epoch is that with the lowest validation loss, not the highest accuracy: on a few
    dozen validation videos accuracy has coarse steps, and the best of a hundred epochs is luck.

    Args:
        network: Takes a batch of inputs and returns scores of shape (B, C); on the device. Its
            attribute `noise` is the generator of its dropout, or None.
        train: Inputs (N, …) and classes (N,), on the device.
        val: The samples by which the epoch is chosen, likewise.
        schedule: The hyperparameters.
        generator: Generator of order and mixup; on the CPU, so that they are the same on all
            devices.
        on_epoch: Called after each epoch; an exception that it raises ends the training.

    Returns:
        The epoch whose weights are kept, from 1.
    """
    steps = math.ceil(len(train[0]) / schedule.batch_size)
    optimizer = torch.optim.AdamW(
        _groups(network, schedule.weight_decay), lr=schedule.lr, fused=True
    )
    losses = _Losses(train, schedule, generator)
    measured = _drawn(train, generator.initial_seed())
    best_loss, best_epoch = math.inf, 0
    best_state = copy.deepcopy(network.state_dict())
    step = 0
    with BatchParts(network) as parts:
        for epoch in range(1, schedule.epochs + 1):
            parts.train()
            order = torch.randperm(len(train[0]), generator=generator).to(train[0].device)
            for rows in torch.split(order, schedule.batch_size):
                lr = schedule.lr * schedule.factor(step, steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                parts.set_gradients(losses.of_batch(rows), len(rows))
                optimizer.step()
                step += 1
            metrics = _measure(parts, measured, val, epoch, lr)
            if metrics.val_loss < best_loss:
                best_loss, best_epoch = metrics.val_loss, epoch
                best_state = copy.deepcopy(network.state_dict())
            if on_epoch is not None:
                on_epoch(metrics)
            if epoch - best_epoch >= schedule.patience:
                break
    network.load_state_dict(best_state)
    logger.debug("stopped after epoch %d; the best was %d", epoch, best_epoch)
    return best_epoch


def generators(seed: int, device: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """A generator on the CPU for weights and order, and one on the device for dropout."""
    return (
        torch.Generator().manual_seed(seed),
        torch.Generator(device).manual_seed(seed + 1),
    )


def drop(h: Tensor, share: float, noise: torch.Generator | None) -> Tensor:
    """Dropout with random numbers of the given generator."""
    if share == 0.0 or noise is None:
        return h
    keep = 1.0 - share
    return h * torch.empty_like(h).bernoulli_(keep, generator=noise).div_(keep)


def check_dropout(dropout: float) -> None:
    """Check a dropout probability.

    Raises:
        InvalidInputError: It is out of range.
    """
    if not 0.0 <= dropout < 1.0:
        raise InvalidInputError(f"dropout is {dropout}; 0 <= dropout < 1 is allowed")


def standard(x: npt.NDArray[np.floating]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column of (N, D); 1 for the deviation of a constant."""
    spread = np.nanstd(x, axis=0, dtype=np.float64)
    mean = np.nanmean(x, axis=0, dtype=np.float64)
    scale = np.where(spread > 1e-8, spread, 1.0)
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(scale.astype(np.float32))


class _Losses:
    """The losses of batches, with the schedule's mixup and class weights."""

    def __init__(
        self, train: tuple[Tensor, Tensor], schedule: Schedule, generator: torch.Generator
    ) -> None:
        self._schedule, self._generator = schedule, generator
        self._x, self._y = train
        # numpy's generator: torch's Beta distribution takes none.
        self._numbers = np.random.default_rng(generator.initial_seed())
        self._weights = None
        if schedule.class_weights == "balanced":
            counts = torch.bincount(self._y)
            self._weights = counts[counts > 0].double().mean() / counts.clamp(min=1).double()

    def of_batch(self, rows: Tensor) -> PartLoss:
        """The loss of a batch as a function of the network and of the part of the batch."""
        x, y = self._x[rows], self._y[rows]
        classes = [(1.0, y)]
        alpha = self._schedule.mixup
        if alpha and len(rows) > 1:
            share = float(self._numbers.beta(alpha, alpha))
            others = torch.randperm(len(rows), generator=self._generator).to(rows.device)
            x = torch.lerp(x[others], x, share)
            classes = [(share, y), (1.0 - share, y[others])]
        factors = [share / self._total_weight(of) for share, of in classes]

        def loss(network: nn.Module, part: slice) -> Tensor:
            scores = network(x[part])
            terms = [self._cross_entropy(scores, of[part]) for _, of in classes]
            return torch.stack(
                [factor * term for factor, term in zip(factors, terms, strict=True)]
            ).sum()

        return loss

    def _total_weight(self, y: Tensor) -> float | Tensor:
        return len(y) if self._weights is None else self._weights[y].sum()

    def _cross_entropy(self, scores: Tensor, y: Tensor) -> Tensor:
        """The sum over videos, weighted by class."""
        smoothing = self._schedule.label_smoothing
        if self._weights is None:
            return functional.cross_entropy(scores, y, label_smoothing=smoothing, reduction="sum")
        losses = functional.cross_entropy(scores, y, label_smoothing=smoothing, reduction="none")
        return (losses * self._weights[y]).sum()


def _drawn(data: tuple[Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor]:
    """`MEASURED_TRAINING` random rows, or all if there are fewer."""
    x, y = data
    if len(x) <= MEASURED_TRAINING:
        return data
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    rows = order[:MEASURED_TRAINING].to(x.device)
    return x[rows], y[rows]


def _measure(
    parts: BatchParts,
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    epoch: int,
    lr: float,
) -> EpochMetrics:
    parts.train(False)
    network = parts.networks[0]
    (train_loss, train_accuracy, train_f1), (val_loss, val_accuracy, val_f1) = parts.map(
        lambda data: _judge(network, *data), [train, val]
    )
    return EpochMetrics(
        epoch=epoch,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        train_f1_macro=train_f1,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        val_f1_macro=val_f1,
        lr=lr,
    )


def _judge(network: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Loss, accuracy and macro-F1, without dropout."""
    with torch.inference_mode():
        scores = torch.cat([network(part) for part in torch.split(x, _MEASURED_AT_ONCE)])
        loss = float(functional.cross_entropy(scores, y))
        predicted = scores.argmax(dim=1).cpu().numpy()
    truth = y.cpu().numpy()
    return loss, float((predicted == truth).mean()), macro_f1(truth, predicted, scores.shape[1])


def _groups(network: nn.Module, weight_decay: float) -> Sequence[dict[str, object]]:
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
