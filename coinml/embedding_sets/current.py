"""Selecting the current rows of a set: of duplicate clips the one written last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

KEYS = ("video_id", "start_s", "end_s", "file_sha256")
"""The key of an embedded video (or extent)."""

ORDER = (*KEYS, "clip")
"""The key of a row."""


def latest_rows(table: pa.Table, sha256s: Mapping[str, str] | None = None) -> NDArray[np.int64]:
    """Indices of the current rows of a table, ordered by video, extent and clip.

    If a video (or extent) was embedded from several files, the rows of the file written last are
    current; of several rows for one clip, the one written last.

    Args:
        table: The columns `ORDER`, in the order of writing.
        sha256s: Hash of each video's current file; rows of other files are ignored.
    """
    rows = np.arange(table.num_rows)
    if not len(rows):
        return rows
    (ids, video), (files, file) = _ranked(table, "video_id"), _ranked(table, "file_sha256")
    if sha256s is not None:
        rank_of = {str(text): rank for rank, text in enumerate(files)}
        present = np.array([rank_of.get(sha256s.get(str(text), ""), -1) for text in ids])
        rows = rows[present[video] == file]
    # The whole video (start and end are null) is sorted before any extent.
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
    """The first row of each video (or extent) in rows ordered by `latest_rows`.

    Args:
        table: Rows in that order, with at least the columns `KEYS`.

    Returns:
        The first row of each, and the values of `KEYS` there.
    """
    values = {name: table.column(name).to_numpy() for name in KEYS}
    first = np.zeros(table.num_rows, dtype=bool)
    first[:1] = True
    for column in values.values():
        if column.dtype.kind == "f":
            # NaN (null) is unequal to itself; -1 is not.
            column = np.nan_to_num(column, nan=-1.0)
        first[1:] |= column[1:] != column[:-1]
    starts = np.flatnonzero(first)
    return starts, {name: column[starts] for name, column in values.items()}


def _ranked(table: pa.Table, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The distinct texts, sorted, and each row's index among them."""
    column = table.column(name).combine_chunks().dictionary_encode()
    texts = column.dictionary.to_numpy(zero_copy_only=False)
    order = np.argsort(texts)
    places = np.empty(len(texts), dtype=np.int64)
    places[order] = np.arange(len(texts))
    ranks: NDArray[np.int64] = places[column.indices.to_numpy()]
    return texts[order], ranks


def _last_of_runs(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Mask of the rows that are the last of a run of equal rows."""
    differs = np.zeros(len(columns[0]), dtype=bool)
    differs[-1:] = True
    for column in columns:
        differs[:-1] |= column[1:] != column[:-1]
    return differs
