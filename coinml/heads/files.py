"""Files of trained heads: safetensors for arrays, skops for scikit-learn's objects.

No other module reads or writes these formats. Reading them runs no code: a safetensors file has
arrays only, and a skops file with types other than scikit-learn's own is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinml.errors import InvalidInputError

_SKOPS = ".skops"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadContent:
    """The content of a head's file.

    Attributes:
        kind: Name of the kind of head: "mlp", "svm" and so on.
        description: Plain values; `classes` is always among them.
        arrays: Weights by name; empty in a skops file.
        fitted: scikit-learn's fitted object; None in a safetensors file.
    """

    kind: str
    description: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]
    fitted: Any = None


def write_head(path: Path, content: HeadContent) -> None:
    """Write a head, in the format that the path's ending names."""
    form = f"coinml-{content.kind}-1"
    if path.suffix == _SKOPS:
        import skops.io

        skops.io.dump(
            {"format": form, "head": dict(content.description), "fitted": content.fitted}, path
        )
        return
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(value) for name, value in content.arrays.items()}
    save_file(arrays, path, {"format": form, "head": json.dumps(content.description)})


def read_head(path: Path, *kinds: str) -> HeadContent:
    """Read what `write_head` wrote.

    Args:
        path: Its ending names the format.
        kinds: The kinds that are accepted.

    Raises:
        InvalidInputError: The file is not such a head, or has other types.
    """
    form, content = _read_objects(path) if path.suffix == _SKOPS else _read_arrays(path)
    return HeadContent(kind=_kind(path, form, kinds), **content)


def read_kind(path: Path, *kinds: str) -> str:
    """The kind of head that a file has.

    Raises:
        InvalidInputError: It is none of these.
    """
    return read_head(path, *kinds).kind


def _kind(path: Path, form: str | None, kinds: Sequence[str]) -> str:
    allowed = {f"coinml-{kind}-1": kind for kind in kinds}
    if form not in allowed:
        raise InvalidInputError(f"{path}: not a {' or '.join(allowed)} head but {form!r}")
    return allowed[form]


def _read_arrays(path: Path) -> tuple[str | None, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            # `keys()` is the file's own method, not a dictionary's.
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        description = json.loads(metadata.get("head", "{}"))
    except (SafetensorError, OSError, ValueError) as err:
        raise InvalidInputError(f"{path}: not a readable head: {err}") from err
    return metadata.get("format"), {"description": description, "arrays": arrays}


def _read_objects(path: Path) -> tuple[str | None, dict[str, Any]]:
    from zipfile import BadZipFile

    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        content = skops.io.load(path, trusted=[])
    except UntrustedTypesFoundException as err:
        raise InvalidInputError(f"{path}: has types that are not scikit-learn's: {err}") from err
    except (BadZipFile, OSError, KeyError, ValueError) as err:
        raise InvalidInputError(f"{path}: not a readable head: {err}") from err
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path}: not a head but {type(content).__name__}")
    described = {"description": content.get("head", {}), "arrays": {}}
    return content.get("format"), {**described, "fitted": content.get("fitted")}
