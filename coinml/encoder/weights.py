"""A checkpoint's weights on disk: one file, or safetensors files with an index."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import InvalidInputError, LocalError

if TYPE_CHECKING:
    import torch

SAFETENSORS, SAFETENSORS_INDEX, PICKLED = WEIGHTS_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
)
"""In the order in which transformers looks for them."""

SHARDS = "model-*.safetensors"
"""Pattern of the names of an index's files on the hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A checkpoint's weights; see `find_weights`.

    Attributes:
        main: The single file of weights, or the index.
        shards: The files with the tensors, sorted by name.
    """

    main: Path
    shards: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        """All files."""
        return list(dict.fromkeys([self.main, *self.shards]))

    def sha256(self) -> str:
        """Hash of the file; for several files, hash of the list of their names and hashes."""
        if self.shards == (self.main,):
            return _sha256(self.main)
        lines = "".join(f"{_sha256(shard)}  {shard.name}\n" for shard in self.shards)
        return hashlib.sha256(lines.encode()).hexdigest()

    def tensor_names(self) -> set[str]:
        """Names of the tensors in the files.

        Raises:
            InvalidInputError: A file holds something else than tensors.
        """
        if self.main.name == PICKLED:
            return set(self._unpickled())
        return {name for shard in self.shards for name in _names_in(shard)}

    def tensors(self, names: Collection[str] | None = None) -> dict[str, torch.Tensor]:
        """Some of the tensors, or all if None, on the CPU and independent of the files.

        Raises:
            InvalidInputError: A file holds something else than tensors.
        """
        if self.main.name == PICKLED:
            loaded = self._unpickled()
            return {name: loaded[name].clone() for name in (loaded if names is None else names)}
        from safetensors import SafetensorError, safe_open

        found: dict[str, torch.Tensor] = {}
        for shard in self.shards:
            present = _names_in(shard)
            wanted = present if names is None else present.intersection(names)
            try:
                with safe_open(shard, framework="pt") as file:
                    # Without the copy they would change, or be gone, with the file.
                    found |= {name: file.get_tensor(name).clone() for name in wanted}
            except (SafetensorError, OSError) as err:
                raise InvalidInputError(f"{shard}: not a safetensors file") from err
        return found

    def _unpickled(self) -> dict[str, torch.Tensor]:
        from pickle import UnpicklingError

        import torch

        try:
            # With weights_only, torch reads tensors from the pickle and executes no code.
            loaded = torch.load(self.main, map_location="cpu", weights_only=True, mmap=True)
        except (UnpicklingError, RuntimeError, OSError) as err:
            raise self._not_only_tensors() from err
        if not isinstance(loaded, dict) or not all(
            isinstance(one, torch.Tensor) for one in loaded.values()
        ):
            raise self._not_only_tensors()
        return dict(loaded)

    def _not_only_tensors(self) -> InvalidInputError:
        return InvalidInputError(
            f"{self.main}: not only tensors; save_pretrained writes safetensors"
        )


def find_weights(folder: Path, *, ref: str) -> Weights:
    """Find the weights in a checkpoint's folder.

    Raises:
        InvalidInputError: There are no weights, or a file that an index names is missing.
    """
    for name in WEIGHTS_FILES:
        main = folder / name
        if not main.is_file():
            continue
        if name != SAFETENSORS_INDEX:
            return Weights(main=main, shards=(main,))
        shards = tuple(folder / shard for shard in _named_by(main))
        for shard in shards:
            if not shard.is_file():
                raise InvalidInputError(f"encoder {ref!r}: lacks {shard.name}, which {name} names")
        return Weights(main=main, shards=shards)
    raise InvalidInputError(f"encoder {ref!r}: has none of {', '.join(WEIGHTS_FILES)}")


def _named_by(index: Path) -> list[str]:
    """Names of the files in an index, sorted."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        # Only files in the index's folder, no paths.
        if names and all(Path(name).name == name for name in names):
            return names
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise InvalidInputError(f"{index}: not an index of safetensors files") from err
    raise InvalidInputError(f"{index}: names no files in its folder")


def _names_in(shard: Path) -> set[str]:
    try:
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = file.read(min(length, 100_000_000))
        return set(json.loads(header)) - {"__metadata__"}
    except (OSError, ValueError, struct.error) as err:
        raise InvalidInputError(f"{shard}: not a safetensors file") from err


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise LocalError(f"{path}: {err.strerror}") from err
