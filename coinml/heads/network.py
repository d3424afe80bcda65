"""The base class of heads that are neural networks: classes, kept epoch, and file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import pandas as pd
import torch
from torch import nn

from coinml.heads.files import HeadContent, read_head, write_head

Network = TypeVar("Network", bound=nn.Module)


class NetworkHead(Generic[Network]):
    """A trained network: embeddings in, class probabilities out.

    Attributes:
        classes: Class names in the order of the probabilities.
        best_epoch: The epoch whose weights were kept.
    """

    kind: ClassVar[str]
    """Name of the kind of head in its file."""

    def __init__(self, network: Network, classes: tuple[str, ...], *, best_epoch: int) -> None:
        self._network = network.eval()
        self.classes = classes
        self.best_epoch = best_epoch

    @property
    def settings(self) -> dict[str, object]:
        """What was chosen on val: the epoch."""
        return {"best_epoch": self.best_epoch}

    @property
    def search(self) -> pd.DataFrame:
        """Empty: networks try no settings."""
        return pd.DataFrame()

    def _shape(self) -> dict[str, Any]:
        """The sizes from which `_built` makes the same network."""
        raise NotImplementedError

    @classmethod
    def _built(cls, shape: dict[str, Any]) -> Network:
        """A network of these sizes, whose weights are then loaded."""
        raise NotImplementedError

    def save(self, path: Path) -> None:
        """Write weights and description into one safetensors file."""
        described = {
            "classes": list(self.classes),
            **self._shape(),
            "best_epoch": self.best_epoch,
        }
        arrays = {name: value.numpy() for name, value in self._network.state_dict().items()}
        write_head(path, HeadContent(kind=self.kind, description=described, arrays=arrays))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InvalidInputError: The file is not such a head.
        """
        content = read_head(path, cls.kind)
        described = dict(content.description)
        network = cls._built(described)
        network.load_state_dict({k: torch.from_numpy(v) for k, v in content.arrays.items()})
        return cls(network, tuple(described["classes"]), best_epoch=described["best_epoch"])
