"""The quantized model of a set with precision int8, kept in the set's folder.

Which clips it was quantized on is part of the set's spec, and the options say nothing of it: the
set of some options is the one that is there.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from coinml.embedding_sets.listing import list_sets
from coinml.embedding_sets.options import SetOptions
from coinml.embedding_sets.places import (
    as_local_error,
    filesystem_of,
    is_local,
    make_folder,
    write_whole,
)
from coinml.embedding_sets.sets import EmbeddingSet
from coinml.embedding_sets.spec import SetSpec
from coinml.encoder.checkpoint import QUANTIZED_FILE
from coinml.encoder.sampling import INT8
from coinml.errors import InvalidInputError
from coinml.runtime import atomic_files
from coinml.runtime.addresses import masked
from coinml.runtime.home import home


def find_spec(root_url: str, dataset: str, options: SetOptions) -> SetSpec:
    """The spec of a dataset's set with these options, whether the set is there or not.

    With precision int8 it is that of the set that is there, with its calibration; where there is
    none, a spec without one, which is no set's.

    Args:
        root_url: Folder or fsspec URL of the embedding sets.
        dataset: Its name.
        options: With the encoder named.

    Raises:
        InvalidInputError: As `SetOptions.spec`; or several sets, quantized on different clips, have
            these options.
        TransientError: The hub does not answer.
        LocalError: The place cannot be read.
    """
    found = find_quantized_set(root_url, dataset, options) if options.precision == INT8 else None
    return options.spec(dataset) if found is None else found.spec


def find_quantized_set(root_url: str, dataset: str, options: SetOptions) -> EmbeddingSet | None:
    """The set with these options, whatever clips it was quantized on; None if there is none.

    Raises:
        InvalidInputError: As `find_spec`.
        TransientError: Likewise.
        LocalError: Likewise.
    """
    # A checkpoint's folder can have a quantized model of its own, which is not the set's.
    wanted = _uncalibrated(options.spec(dataset))
    found = [one for one in list_sets(root_url, dataset) if _uncalibrated(one.spec) == wanted]
    if len(found) > 1:
        named = ", ".join(one.spec.fingerprint for one in found)
        raise InvalidInputError(
            f"{len(found)} int8 sets of {dataset!r} below {masked(root_url)} have these options, "
            f"quantized on different clips: {named}; move the folders of all but one away"
        )
    return found[0] if found else None


def create_quantized_set(root_url: str, spec: SetSpec, content: bytes) -> EmbeddingSet:
    """Create a set with its quantized model, or open it if it exists.

    Args:
        root_url: Folder or fsspec URL of the embedding sets.
        spec: Its spec, with the calibration of the model.
        content: The quantized model; where the set has one, that stays.

    Raises:
        LocalError: The place cannot be read or written.
    """
    filesystem, root = filesystem_of(root_url)
    path = f"{root}/{spec.dataset}/{spec.fingerprint}"
    # The model first, so that a set whose creation is cut off is none, and not one without a model.
    keep_quantized(EmbeddingSet(filesystem, path, spec), content)
    return EmbeddingSet.open(root_url, spec.dataset, spec, create=True)


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
            make_folder(filesystem, embedding_set.path)
            write_whole(filesystem, place, content)
        return bool(filesystem.cat_file(place) == content)


def _uncalibrated(spec: SetSpec) -> SetSpec:
    return replace(spec, encoder=replace(spec.encoder, calibration_sha256=None))


def _place(embedding_set: EmbeddingSet) -> str:
    return f"{embedding_set.path}/{QUANTIZED_FILE}"
