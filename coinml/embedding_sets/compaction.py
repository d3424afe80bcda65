"""Merging many small parts into few; no row is missing at any moment."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coinml.embedding_sets.current import ORDER, latest_rows
from coinml.embedding_sets.parts import encode_table, read_part
from coinml.embedding_sets.places import as_local_error, is_local, remove_file
from coinml.embedding_sets.sets import EmbeddingSet
from coinml.errors import LocalError
from coinml.runtime.atomic_files import PARTIAL_GLOB

if TYPE_CHECKING:
    import pyarrow as pa

PART_BYTES = 64 * 2**20
"""Target size of a part: few files, and several parts still fit into memory."""

_LEFTOVER_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactReport:
    """What compaction changed.

    Attributes:
        parts_before: Number of parts before.
        parts_after: Number of parts after; others may have been appended meanwhile.
        bytes_before: Bytes of all parts before.
        bytes_after: Bytes of all parts after.
        rows_dropped: Number of clips dropped, as a later part replaces them.
        leftovers: Number of unfinished files of killed processes that were removed.
    """

    parts_before: int
    parts_after: int
    bytes_before: int
    bytes_after: int
    rows_dropped: int
    leftovers: int


def compact(embedding_set: EmbeddingSet, *, part_bytes: int = PART_BYTES) -> CompactReport:
    """Merge small parts and drop rows that are no longer current.

    It may be killed at any moment, and other processes may read, append and compact meanwhile:
    a part is removed only after each of its rows, in the same or a later version, is in a part
    whose name sorts after it and which was read back. Meanwhile some rows exist twice; readers
    see one of them.

    Args:
        embedding_set: The set.
        part_bytes: Approximate size of the merged parts.

    Raises:
        BrokenPartError: A part is damaged; rename it first (`EmbeddingSet.set_aside`).
        LocalError: The set cannot be read or written.
    """
    before = embedding_set.part_sizes()
    leftovers = _remove_leftovers(embedding_set)
    dropped = embedding_set.consistently(
        lambda parts: _compact(embedding_set, parts, part_bytes=part_bytes)
    )
    after = embedding_set.part_sizes()
    return CompactReport(
        parts_before=len(before),
        parts_after=len(after),
        bytes_before=sum(before.values()),
        bytes_after=sum(after.values()),
        rows_dropped=dropped,
        leftovers=leftovers,
    )


def _compact(embedding_set: EmbeddingSet, parts: Sequence[str], *, part_bytes: int) -> int:
    import pyarrow as pa

    filesystem, dim = embedding_set.filesystem, embedding_set.spec.encoder.dim
    keys = [read_part(filesystem, f"{embedding_set.path}/{part}", dim, ORDER) for part in parts]
    if not keys:
        return 0
    counts = np.zeros(sum(table.num_rows for table in keys), dtype=bool)
    counts[latest_rows(pa.concat_tables(keys))] = True
    ends = np.cumsum([table.num_rows for table in keys])
    kept = dict(zip(parts, np.split(counts, ends[:-1]), strict=True))
    sizes = embedding_set.part_sizes()
    shrunk = {
        part: sizes.get(part, 0) * kept[part].sum() / max(len(kept[part]), 1) for part in parts
    }
    dropped = 0
    for group in _groups(shrunk, part_bytes):
        if len(group) == 1 and kept[group[0]].all():
            continue
        tables = []
        for part in group:
            table = read_part(filesystem, f"{embedding_set.path}/{part}", dim)
            tables.append(table if kept[part].all() else table.filter(pa.array(kept[part])))
        merged = pa.concat_tables(tables)
        if merged.num_rows:
            name = _successor(group[-1])
            embedding_set.write_part(name, encode_table(merged))
            _check(embedding_set, name, merged)
        for part in group:
            with as_local_error(f"{embedding_set.path}/{part}", filesystem):
                remove_file(filesystem, f"{embedding_set.path}/{part}")
        dropped += sum(int((~kept[part]).sum()) for part in group)
    return dropped


def _groups(sizes: dict[str, float], part_bytes: int) -> list[list[str]]:
    """Consecutive parts, in the order of writing, whose sizes together make one part."""
    groups: list[list[str]] = []
    room = 0.0
    for part, size in sizes.items():
        if size > room or not groups:
            groups.append([])
            room = part_bytes
        groups[-1].append(part)
        room -= size
    return groups


def _successor(part: str) -> str:
    """A name that sorts after a part's and before the name of any part written later."""
    stem, _, generation = part.removesuffix(".parquet").partition("_")
    number = int(generation.split("-")[0] or 0) + 1 if generation else 1
    return f"{stem}_{number:06d}-{uuid.uuid4().hex[:8]}.parquet"


def _check(embedding_set: EmbeddingSet, name: str, merged: pa.Table) -> None:
    """Read a new part back, with its checksums, before the parts that it replaces are removed."""
    path = f"{embedding_set.path}/{name}"
    found = read_part(embedding_set.filesystem, path, embedding_set.spec.encoder.dim)
    if not found.select(ORDER).equals(merged.select(ORDER)):
        raise LocalError(f"{path}: its content is not what was written; nothing was removed")


def _remove_leftovers(embedding_set: EmbeddingSet) -> int:
    """Remove unfinished files that are too old to be still written; return their number."""
    if not is_local(embedding_set.filesystem):
        return 0
    removed = 0
    with as_local_error(embedding_set.path):
        for path in Path(embedding_set.path).glob(PARTIAL_GLOB):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    path.unlink()
                    removed += 1
    return removed
