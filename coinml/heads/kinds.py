"""What the rest may rely on in any head, and how to load one from its file."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError
from coinml.heads.files import ARRAYS, OBJECTS, read_kind

if TYPE_CHECKING:
    from coinml.embedding_sets.table import Samples

HEADS = ("mlp", "svm", "attentive", "logreg", "knn")
"""The heads there are."""

USUAL = ("mlp", "svm")
"""Those that are trained where nobody says which."""

LOOK_AT_CLIPS = ("attentive",)
"""Those that need a video's clips and not their mean."""

_SUFFIXES = {"mlp": ARRAYS, "svm": ARRAYS, "attentive": ARRAYS, "logreg": OBJECTS, "knn": OBJECTS}

_CLASSES = {
    "mlp": "coinml.heads.mlp:MLPHead",
    "svm": "coinml.heads.svm:SVMHead",
    "attentive": "coinml.heads.attentive:AttentiveHead",
    "logreg": "coinml.heads.baselines:BaselineHead",
    "knn": "coinml.heads.baselines:BaselineHead",
}


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
        """Whether it looks at a video's clips and not at their mean."""

    def predict_proba(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Class probabilities, float32 of shape (N, C).

        Args:
            x: Embeddings of shape (N, D); clips of shape (N, K, D) for a head that takes them.
        """

    def save(self, path: Path) -> None:
        """Write the head into one file, which `load_head` reads."""


def seen_by(head: Head, samples: Samples) -> npt.NDArray[np.floating]:
    """The part of the samples that a head looks at.

    Raises:
        InvalidInputError: It looks at clips, and the samples have none.
    """
    if not head.takes_clips:
        return samples.x
    if samples.clips is None:
        raise InvalidInputError("this head looks at clips, and these samples have none")
    return samples.clips


def load_head(path: Path) -> Head:
    """Read a head's file; it says itself which kind it is.

    Raises:
        InvalidInputError: The ending is of no head, or the content is not.
    """
    if path.suffix not in set(_SUFFIXES.values()):
        raise InvalidInputError(
            f"{path}: a head's file ends in {' or '.join(sorted(set(_SUFFIXES.values())))}"
        )
    module, _, name = _CLASSES[read_kind(path, *HEADS)].partition(":")
    head: Head = getattr(import_module(module), name).load(path)
    return head


def check_heads(names: Sequence[str]) -> None:
    """Refuse what is no list of different heads.

    Raises:
        InvalidInputError: None, an unknown one, or one twice.
    """
    unknown = sorted(set(names) - set(HEADS))
    if unknown or not names:
        raise InvalidInputError(f"heads {', '.join(unknown) or 'none'}: of {', '.join(HEADS)}")
    if len(set(names)) < len(names):
        raise InvalidInputError(f"heads {', '.join(names)}: one is named twice")


def head_file(name: str) -> str:
    """The file name under which a head of this kind is saved.

    Raises:
        InvalidInputError: There is no such head.
    """
    if name not in _SUFFIXES:
        raise InvalidInputError(f"no head {name!r}; there are {', '.join(HEADS)}")
    return f"head{_SUFFIXES[name]}"
