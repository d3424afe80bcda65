"""The interface of every trained head, and the part of the samples that a head is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from coinml.embedding_sets.table import Samples

Numbers = Mapping[str, float]
"""Metrics by their MLflow names."""


class Head(Protocol):
    """A trained classifier of embeddings."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of the probabilities."""

    @property
    def dim(self) -> int:
        """Width of the embeddings it takes."""

    @property
    def takes_clips(self) -> bool:
        """Whether its input is the embeddings of a video's clips, not their mean."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What was chosen on val, by the names of the run's parameters."""

    @property
    def search(self) -> pd.DataFrame:
        """One row per setting that was tried; empty for networks and for loaded heads."""

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C).

        Args:
            x: Embeddings of shape (N, D); clips of shape (N, K, D) for a head that takes them.
        """

    def save(self, path: Path) -> None:
        """Write the head into one file, which `kinds.load_head` reads."""


def head_input(head: Head, samples: Samples) -> npt.NDArray[np.floating]:
    """The samples' clips (N, K, D) for a head that takes clips, else their means (N, D).

    Raises:
        InvalidInputError: The head takes clips, and the samples have none.
    """
    if not head.takes_clips:
        return samples.x
    if samples.clips is None:
        raise InvalidInputError("this head takes clips, and these samples have none")
    return samples.clips
