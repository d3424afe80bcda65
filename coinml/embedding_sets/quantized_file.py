"""The quantized model of a set with precision int8, kept in the set's folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

from coinml.embedding_sets.places import as_local_error, is_local, write_whole
from coinml.embedding_sets.sets import EmbeddingSet
from coinml.encoder.checkpoint import QUANTIZED_FILE
from coinml.encoder.sampling import INT8
from coinml.runtime import atomic_files
from coinml.runtime.home import home


def quantized_file(embedding_set: EmbeddingSet) -> Path | None:
    """Path of a set's quantized model on this machine; None if the set has none.

    Raises:
        LocalError: The set cannot be read.
    """
    place = _place(embedding_set)
    filesystem = embedding_set.filesystem
    if embedding_set.spec.encoder.precision != INT8:
        return None
    with as_local_error(place, filesystem):
        if not filesystem.exists(place):
            return None
        if is_local(filesystem):
            return Path(place)
        content = filesystem.cat_file(place)
    copied = home() / "quantized" / hashlib.sha256(content).hexdigest()[:12] / QUANTIZED_FILE
    if not copied.is_file():
        copied.parent.mkdir(parents=True, exist_ok=True)
        atomic_files.write_whole(copied, content)
    return copied


def keep_quantized(embedding_set: EmbeddingSet, content: bytes) -> bool:
    """Make a quantized model that of a set, unless it has one.

    Returns:
        Whether it is the set's now.

    Raises:
        LocalError: The set cannot be read or written.
    """
    place = _place(embedding_set)
    filesystem = embedding_set.filesystem
    with as_local_error(place, filesystem):
        if not filesystem.exists(place):
            write_whole(filesystem, place, content)
        return bool(filesystem.cat_file(place) == content)


def _place(embedding_set: EmbeddingSet) -> str:
    return f"{embedding_set.path}/{QUANTIZED_FILE}"
