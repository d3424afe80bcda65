"""Which rows of a set count, where a clip is there more than once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

KEYS = ("video_id", "start_s", "end_s", "file_sha256")
"""What a video (or extent) is done under."""

ORDER = (*KEYS, "clip")
"""What tells rows apart."""


def latest_rows(table: pa.Table, sha256s: Mapping[str, str] | None = None) -> NDArray[np.int64]:
    """The rows of a table that count, ordered by video, extent and clip.

    A video (or extent) that was embedded from two files counts with the file that was written
    last; of two rows for one clip the last written counts.

    Args:
        table: The columns `ORDER`, in the order of writing.
        sha256s: Hash of each video's present file; only rows of these files are looked at.
    """
    rows = np.arange(table.num_rows)
    if not len(rows):
        return rows
    (ids, video), (files, file) = _ranked(table, "video_id"), _ranked(table, "file_sha256")
    if sha256s is not None:
        rank_of = {str(text): rank for rank, text in enumerate(files)}
        present = np.array([rank_of.get(sha256s.get(str(text), ""), -1) for text in ids])
        rows = rows[present[video] == file]
    # None, the whole video, comes before any extent.
    start, end = (
        np.nan_to_num(table.column(name).to_numpy(), nan=-1.0) for name in ("start_s", "end_s")
    )
    clip = table.column("clip").to_numpy()
    by_span = rows[np.lexsort((rows, end[rows], start[rows], video[rows]))]
    last_of_span = _last_of_runs(video[by_span], start[by_span], end[by_span])
    lengths = np.diff(np.append(-1, np.flatnonzero(last_of_span)))
    current = np.repeat(file[by_span][last_of_span], lengths)
    kept = by_span[file[by_span] == current]
    kept = kept[np.lexsort((kept, clip[kept], end[kept], start[kept], video[kept]))]
    unique: NDArray[np.int64] = kept[_last_of_runs(video[kept], start[kept], end[kept], clip[kept])]
    return unique


def runs_of_spans(table: pa.Table) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
    """Where each video (or extent) begins in rows that are ordered by them.

    Args:
        table: Rows in the order of `latest_rows`, with the columns `KEYS` at least.

    Returns:
        The first row of each, and the values of `KEYS` there.
    """
    values = {name: table.column(name).to_numpy() for name in KEYS}
    first = np.zeros(table.num_rows, dtype=bool)
    first[:1] = True
    for column in values.values():
        if column.dtype.kind == "f":
            # As numbers that are equal where both are None.
            column = np.nan_to_num(column, nan=-1.0)
        first[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(first)
    return starts, {name: column[starts] for name, column in values.items()}


def _ranked(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different texts in order, and each row's place among them."""
    column = table.column(name).combine_chunks().dictionary_encode()
    texts = column.dictionary.to_numpy(zero_copy_only=False)
    order = np.argsort(texts)
    places = np.empty(len(texts), dtype=np.int64)
    places[order] = np.arange(len(texts))
    ranks: NDArray[np.int64] = places[column.indices.to_numpy()]
    return texts[order], ranks


def _last_of_runs(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a row is the last of a run of equal rows."""
    differs = np.zeros(len(columns[0]), dtype=bool)
    differs[-1:] = True
    for column in columns:
        differs[:-1] |= column[1:] != column[:-1]
    return differs
