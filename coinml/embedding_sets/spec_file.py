"""The file in a set's folder that holds its spec."""

from __future__ import annotations

import json
import logging
from typing import Any

from coinml.embedding_sets.places import as_local_error, make_folder, write_whole
from coinml.embedding_sets.spec import SetSpec
from coinml.errors import LocalError
from coinml.runtime.addresses import masked

logger = logging.getLogger(__name__)

SPEC_NAME = "spec.json"


class BrokenSpecError(LocalError):
    """The file is not the spec of any embedding set."""


def write_spec(filesystem: Any, path: str, spec: SetSpec) -> None:
    """Create a set's folder with its spec.

    Raises:
        OSError: The place cannot be written (remote drivers raise errors of their own).
    """
    make_folder(filesystem, path)
    text = json.dumps(spec.as_dict(), indent=2, sort_keys=True) + "\n"
    write_whole(filesystem, f"{path}/{SPEC_NAME}", text.encode())


def read_spec(filesystem: Any, path: str) -> SetSpec:
    """The spec in a set's folder.

    Raises:
        BrokenSpecError: It is damaged.
        LocalError: It is missing, or its fingerprint is not the folder's name.
    """
    place = f"{path}/{SPEC_NAME}"
    with as_local_error(place, filesystem):
        content = filesystem.cat_file(place)
    try:
        spec = SetSpec.from_dict(json.loads(content))
        found = spec.fingerprint
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise BrokenSpecError(
            f"{masked(place)}: not the spec of an embedding set: {err}; `coinml embed`, with the "
            "options of the set, sets it aside and writes it again"
        ) from err
    *_, dataset, fingerprint = path.split("/")
    if (spec.dataset, found) != (dataset, fingerprint):
        raise LocalError(
            f"{masked(place)}: describes set {found} of {spec.dataset!r} and not {fingerprint} of "
            f"{dataset!r}: it was altered or moved, or another version of coinml made it"
        )
    return spec


def set_aside_broken_spec(filesystem: Any, path: str) -> None:
    """Rename a set's spec to `bad-…` if it is damaged; one of another set stays.

    Raises:
        LocalError: The place cannot be read or written.
    """
    place = f"{path}/{SPEC_NAME}"
    try:
        read_spec(filesystem, path)
    except BrokenSpecError as err:
        logger.warning("%s", err)
        with as_local_error(place, filesystem):
            filesystem.mv(place, f"{path}/bad-{SPEC_NAME}")
    except LocalError as err:
        # Of another set, or out of reach: who opens the set is told.
        logger.debug("%s", err)
