"""One mean vector per video of a set, computed without holding all clips in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from coinml.embedding_sets.current import KEYS, ORDER, latest_rows, runs_of_spans
from coinml.embedding_sets.parts import iterate_part, part_schema, vectors_of

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from coinml.embedding_sets.spec import SetSpec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoMatrix:
    """One vector per video (or extent), ordered by video and extent.

    Attributes:
        video_id: Ids (N,).
        file_sha256: Hashes of the files (N,).
        start_s: float64 (N,), seconds; NaN for a whole video.
        end_s: float64 (N,), seconds; NaN for a whole video.
        clips: int64 (N,): number of clips of each.
        means: float32 (N, D): mean over the clips.
    """

    video_id: NDArray[Any]
    file_sha256: NDArray[Any]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]
    clips: NDArray[np.int64]
    means: NDArray[np.float32]


class Parts(Protocol):
    """The part of `EmbeddingSet` that is used here."""

    spec: SetSpec
    path: str
    filesystem: Any

    def read(self, part: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One part, or some of its columns."""

    def in_threads(self, work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """Map over items in threads."""


def read_matrix(
    embedding_set: Parts, parts: Sequence[str], sha256s: Mapping[str, str] | None
) -> VideoMatrix:
    """The mean over the clips of each video; see `EmbeddingSet.matrix`.

    Args:
        embedding_set: The set.
        parts: Names of its parts, in the order of writing.
        sha256s: As in `EmbeddingSet.videos`.

    Raises:
        LocalError: A part cannot be read.
    """
    import pyarrow as pa

    dim = embedding_set.spec.encoder.dim
    empty = part_schema(dim).empty_table().select(ORDER)
    tables = embedding_set.in_threads(lambda part: embedding_set.read(part, ORDER), parts)
    keys = pa.concat_tables([empty, *tables])
    rows = latest_rows(keys, sha256s)
    starts, spans = runs_of_spans(keys.select(KEYS).take(rows))
    counts = np.diff(np.append(starts, len(rows)))
    place = np.full(keys.num_rows, -1)
    place[rows] = np.repeat(np.arange(len(starts)), counts)
    sums = np.zeros((len(starts), dim), dtype=np.float32)
    lock = threading.Lock()
    begins = np.cumsum([0, *(table.num_rows for table in tables)])

    def add(number: int) -> None:
        begin = begins[number]
        path = f"{embedding_set.path}/{parts[number]}"
        for table in iterate_part(embedding_set.filesystem, path, dim, ["embedding"]):
            places = place[begin : begin + table.num_rows]
            begin += table.num_rows
            added, totals = _sums_by_place(places, vectors_of(table, dim))
            with lock:
                sums[added] += totals

    embedding_set.in_threads(add, range(len(parts)))
    sums /= np.maximum(counts, 1)[:, None]
    return VideoMatrix(**spans, clips=counts, means=sums)


def _sums_by_place(
    places: NDArray[np.int64], vectors: NDArray[np.float16]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The places that occur and the sum of the vectors of each; place -1 is ignored."""
    order = np.argsort(places, kind="stable")
    order = order[np.searchsorted(places[order], 0) :]
    ordered = places[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.diff(np.append(starts, len(ordered)))
    sums = np.zeros((len(starts), vectors.shape[1]), dtype=np.float32)
    # One clip of every video at a time, to avoid a float32 copy of all vectors.
    for clip in range(max(counts, default=0)):
        has = counts > clip
        sums[has] += vectors[order[starts[has] + clip]]
    return ordered[starts], sums
