"""What the rest may rely on in any head, and how to load one from its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError

HEADS = ("mlp", "svm")
"""The heads there are; their files end in the suffix of their format."""

_SUFFIXES = {"mlp": ".safetensors", "svm": ".skops"}


class Head(Protocol):
    """A trained classifier of embeddings."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the probabilities."""

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C), for embeddings of shape (N, D)."""

    def save(self, path: Path) -> None:
        """Write the head into one file, which `load_head` reads."""


def load_head(path: Path) -> Head:
    """Read a head's file; its ending says which kind it is.

    Raises:
        InvalidInputError: The ending is of no head, or the content is not.
    """
    if path.suffix == _SUFFIXES["mlp"]:
        from coinml.mlp import MLPHead

        return MLPHead.load(path)
    if path.suffix == _SUFFIXES["svm"]:
        from coinml.svm import SVMHead

        return SVMHead.load(path)
    raise InvalidInputError(
        f"{path}: a head's file ends in {' or '.join(sorted(_SUFFIXES.values()))}"
    )


def head_file(name: str) -> str:
    """The file name under which a head of this kind is saved.

    Raises:
        InvalidInputError: There is no such head.
    """
    if name not in _SUFFIXES:
        raise InvalidInputError(f"no head {name!r}; there are {', '.join(HEADS)}")
    return f"head{_SUFFIXES[name]}"
