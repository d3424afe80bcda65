"""Files of trained heads: safetensors for arrays, skops for scikit-learn's objects.

No other module reads or writes these formats. Reading them runs no code: a safetensors file has
arrays only, and a skops file with types other than scikit-learn's own is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
        temperature: The temperature of a calibrated head; None for a head that is not.
    """

    kind: str
    description: Mapping[str, Any]
    arrays: Mapping[str, npt.NDArray[Any]]
    fitted: Any = None
    temperature: float | None = None


def write_head(path: Path, content: HeadContent) -> None:
    """Write a head, in the format that the path's ending names."""
    form = f"coinml-{content.kind}-1"
    if path.suffix == _SKOPS:
        import skops.io

        described = {"format": form, "head": dict(content.description), "fitted": content.fitted}
        skops.io.dump(described | _calibration(content), path)
        return
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(value) for name, value in content.arrays.items()}
    metadata = {"format": form, "head": json.dumps(content.description)}
    calibration = {name: json.dumps(value) for name, value in _calibration(content).items()}
    save_file(arrays, path, metadata | calibration)


def write_temperature(path: Path, temperature: float) -> None:
    """Add a temperature to a head's file.

    Raises:
        InvalidInputError: The file is not a head.
    """
    form, content = _read(path)
    kind = str(form).removeprefix("coinml-").removesuffix("-1")
    write_head(path, replace(HeadContent(kind=kind, **content), temperature=temperature))


def read_head(path: Path, *kinds: str) -> HeadContent:
    """Read what `write_head` wrote.

    Args:
        path: Its ending names the format.
        kinds: The kinds that are accepted.

    Raises:
        InvalidInputError: The file is not such a head, or has other types.
    """
    form, content = _read(path)
    return HeadContent(kind=_kind(path, form, kinds), **content)


def _calibration(content: HeadContent) -> dict[str, float]:
    return {} if content.temperature is None else {"temperature": content.temperature}


def _read(path: Path) -> tuple[str | None, dict[str, Any]]:
    return _read_objects(path) if path.suffix == _SKOPS else _read_arrays(path)


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
        temperature = json.loads(metadata.get("temperature", "null"))
    except (SafetensorError, OSError, ValueError) as err:
        raise InvalidInputError(f"{path}: not a readable head: {err}") from err
    return metadata.get("format"), {
        "description": description,
        "arrays": arrays,
        "temperature": temperature,
    }


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
    return content.get("format"), {
        "description": content.get("head", {}),
        "arrays": {},
        "fitted": content.get("fitted"),
        "temperature": content.get("temperature"),
    }
