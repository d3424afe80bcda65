"""The MLP head: three layers on standardised embeddings, trained in torch.

All data lives on the device and batches are slices of it: at 9,030 x 768 a DataLoader
costs more than the arithmetic. Every random number comes from generators of its own,
never from torch's global state, so that two trainings in threads of one process still
repeat bit by bit.
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from coinml.dataset import Samples
from coinml.errors import InvalidInputError
from coinml.evaluation import macro_f1

logger = logging.getLogger(__name__)

_FORMAT = "coinml-mlp-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochMetrics:
    """One epoch's numbers, measured after it and without dropout or label smoothing.

    Attributes:
        epoch: From 1.
        train_loss: Mean cross-entropy in nats; `val_loss` likewise.
        train_accuracy: Share of right answers; `val_accuracy` likewise.
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


def train_mlp(
    train: Samples,
    val: Samples,
    *,
    hidden: Sequence[int] = (512, 256),
    dropout: float = 0.4,
    epochs: int = 100,
    patience: int = 15,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    batch_size: int = 128,
    label_smoothing: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    on_epoch: Callable[[EpochMetrics], None] | None = None,
) -> MLPHead:
    """Fit an MLP and keep the epoch with the lowest validation loss.

    The loss decides and not the accuracy: on a few dozen validation videos accuracy moves
    in coarse steps, and the best of a hundred of them is luck.

    Args:
        train: What it learns from.
        val: What stops it.
        hidden: Widths of the hidden layers.
        dropout: Share of hidden units left out in training.
        epochs: At most this many; the cosine schedule is laid out for all of them.
        patience: Stop after this many epochs without a better validation loss.
        lr: Peak learning rate of AdamW.
        weight_decay: AdamW's decoupled decay, on weights and not on biases.
        batch_size: Videos a step.
        label_smoothing: Share of the target spread over all classes.
        seed: Of initial weights, order and dropout.
        device: `cpu`, `cuda`, `cuda:1` or `auto`.
        on_epoch: Called after each epoch; what it raises ends the training.

    Raises:
        InvalidInputError: An option out of its range, or data that is not finite.
    """
    _check_options(epochs=epochs, patience=patience, batch_size=batch_size, dropout=dropout)
    if not (np.isfinite(train.x).all() and np.isfinite(val.x).all()):
        raise InvalidInputError("embeddings hold values that are not finite")
    place = _device(device)
    # One generator for weights and order on the CPU, so that they are the same everywhere;
    # dropout is drawn where the data is.
    generator = torch.Generator().manual_seed(seed)
    noise = torch.Generator(place).manual_seed(seed + 1)
    network = _Network([train.x.shape[1], *hidden, len(train.classes)], dropout, noise)
    network.reset(generator)
    network.standardise(train.x)
    network.to(place)
    optimizer = torch.optim.AdamW(_groups(network, weight_decay), lr=lr)
    steps = epochs * math.ceil(len(train) / batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1.0 + math.cos(math.pi * min(step / steps, 1.0)))
    )
    data = {
        # Copies: arrays out of a table may be read-only, which torch warns of.
        side: (torch.tensor(samples.x, device=place), torch.tensor(samples.y, device=place))
        for side, samples in (("train", train), ("val", val))
    }
    best_loss, best_epoch = math.inf, 0
    best_state = copy.deepcopy(network.state_dict())
    for epoch in range(1, epochs + 1):
        _run_epoch(
            network,
            *data["train"],
            optimizer=optimizer,
            schedule=schedule,
            order=torch.randperm(len(train), generator=generator),
            batch_size=batch_size,
            label_smoothing=label_smoothing,
        )
        measured = {side: _measure(network, x, y) for side, (x, y) in data.items()}
        metrics = EpochMetrics(
            epoch=epoch,
            train_loss=measured["train"][0],
            train_accuracy=measured["train"][1],
            train_f1_macro=measured["train"][2],
            val_loss=measured["val"][0],
            val_accuracy=measured["val"][1],
            val_f1_macro=measured["val"][2],
            lr=float(schedule.get_last_lr()[0]),
        )
        if metrics.val_loss < best_loss:
            best_loss, best_epoch = metrics.val_loss, epoch
            best_state = copy.deepcopy(network.state_dict())
        if on_epoch is not None:
            on_epoch(metrics)
        if epoch - best_epoch >= patience:
            break
    network.load_state_dict(best_state)
    logger.debug("MLP stopped after epoch %d; best was %d", epoch, best_epoch)
    return MLPHead(network.to("cpu"), tuple(train.classes), best_epoch=best_epoch)


class MLPHead:
    """A trained MLP: embeddings in, class probabilities out.

    Attributes:
        classes: Class names in the order of the probabilities.
        best_epoch: The epoch whose weights these are.
    """

    def __init__(self, network: _Network, classes: tuple[str, ...], *, best_epoch: int) -> None:
        self._network = network.eval()
        self.classes = classes
        self.best_epoch = best_epoch

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""
        return self._network.widths[0]

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C), for embeddings of shape (N, D)."""
        with torch.inference_mode():
            scores = self._network(torch.tensor(np.asarray(x, dtype=np.float32)))
            return np.asarray(functional.softmax(scores, dim=1).numpy())

    def save(self, path: Path) -> None:
        """Write weights and description into one safetensors file."""
        description = {
            "classes": self.classes,
            "widths": self._network.widths,
            "dropout": self._network.dropout,
            "best_epoch": self.best_epoch,
        }
        state = {name: value.contiguous() for name, value in self._network.state_dict().items()}
        save_file(state, path, {"format": _FORMAT, "head": json.dumps(description)})

    @classmethod
    def load(cls, path: Path) -> MLPHead:
        """Read what `save` wrote.

        Raises:
            InvalidInputError: The file is not such a head.
        """
        from safetensors import safe_open

        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise InvalidInputError(
                        f"{path}: not a {_FORMAT} head but {metadata.get('format')!r}"
                    )
                # `keys()` is the file's own method, not a dictionary's.
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as err:
            raise InvalidInputError(f"{path}: not a readable MLP head: {err}") from err
        description = json.loads(metadata["head"])
        network = _Network(description["widths"], description["dropout"], None)
        network.load_state_dict(state)
        return cls(network, tuple(description["classes"]), best_epoch=description["best_epoch"])


class _Network(nn.Module):
    """Standardisation, hidden layers with ReLU and dropout, and a linear output."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self, widths: Sequence[int], dropout: float, noise: torch.Generator | None
    ) -> None:
        super().__init__()
        self.widths = list(widths)
        self.dropout = dropout
        self._noise = noise
        self.register_buffer("mean", torch.zeros(widths[0]))
        self.register_buffer("scale", torch.ones(widths[0]))
        # Uninitialised on purpose: torch's own initialisation would draw from global state.
        pairs = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(fan_out, fan_in) for fan_in, fan_out in pairs)
        self.biases = nn.ParameterList(torch.zeros(fan_out) for _, fan_out in pairs)

    def reset(self, generator: torch.Generator) -> None:
        """Draw initial weights.

        Source: He et al. (2015), Delving deep into rectifiers, for the layers before a
        ReLU; a small output layer, so that training starts from even probabilities.
        """
        *hidden, output = self.weights
        for weight in hidden:
            nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)
        nn.init.normal_(output, std=0.01, generator=generator)

    def standardise(self, x: npt.NDArray[np.float32]) -> None:
        """Take mean and spread from training data; a constant column is left as it is."""
        spread = x.std(axis=0, dtype=np.float64)
        self.mean.copy_(torch.from_numpy(x.mean(axis=0, dtype=np.float64)))
        self.scale.copy_(torch.from_numpy(np.where(spread > 1e-8, spread, 1.0)))

    def forward(self, x: Tensor) -> Tensor:
        h = (x - self.mean) / self.scale
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = functional.linear(h, weight, bias)
            if i < last:
                h = self._drop(functional.relu(h))
        return h

    def _drop(self, h: Tensor) -> Tensor:
        if not self.training or self.dropout == 0.0:
            return h
        keep = 1.0 - self.dropout
        return h * torch.empty_like(h).bernoulli_(keep, generator=self._noise).div_(keep)


def _run_epoch(
    network: _Network,
    x: Tensor,
    y: Tensor,
    *,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LambdaLR,
    order: Tensor,
    batch_size: int,
    label_smoothing: float,
) -> None:
    network.train()
    for rows in torch.split(order.to(x.device), batch_size):
        loss = functional.cross_entropy(network(x[rows]), y[rows], label_smoothing=label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _measure(network: _Network, x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Loss, accuracy and macro-F1, without dropout."""
    network.eval()
    with torch.inference_mode():
        scores = network(x)
        loss = float(functional.cross_entropy(scores, y))
        predicted = scores.argmax(dim=1).cpu().numpy()
    truth = y.cpu().numpy()
    return loss, float((predicted == truth).mean()), macro_f1(truth, predicted, scores.shape[1])


def _groups(network: _Network, weight_decay: float) -> list[dict[str, object]]:
    return [
        {"params": list(network.weights), "weight_decay": weight_decay},
        {"params": list(network.biases), "weight_decay": 0.0},
    ]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as err:
        raise InvalidInputError(f"device {name!r}: use auto, cpu, cuda or cuda:N") from err
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInputError(f"device {name!r}: torch sees no CUDA here; use auto or cpu")
    return device


def _check_options(*, epochs: int, patience: int, batch_size: int, dropout: float) -> None:
    for name, value in (("epochs", epochs), ("patience", patience), ("batch_size", batch_size)):
        if value < 1:
            raise InvalidInputError(f"{name} is {value}; 1 or more is allowed")
    if not 0.0 <= dropout < 1.0:
        raise InvalidInputError(f"dropout is {dropout}; 0 <= dropout < 1 is allowed")
