"""One part of an embedding set: a Parquet file that is whole or not there, and verified on read."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinml.errors import InvalidInputError, LocalError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_TEXTS = ["video_id", "file_sha256", "decoder", "dtype"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoRows:
    """The embedded clips of one video (or extent).

    Attributes:
        video_id: Its id in the dataset.
        file_sha256: Hash of the file that was read.
        start_s: Start of the extent in seconds, None for the whole video.
        end_s: Its end.
        timestamps_s: float64 (clips, frames).
        decoder: Which decoder gave the pixels.
        frames_decoded: Number of different frames that were read.
        frames_substituted: Number of frames whose neighbour stands in.
        dtype: What the encoder computed in ("float32").
        embeddings: float (clips, D).
    """

    video_id: str
    file_sha256: str
    start_s: float | None = None
    end_s: float | None = None
    timestamps_s: NDArray[np.float64]
    decoder: str
    frames_decoded: int
    frames_substituted: int
    dtype: str
    embeddings: NDArray[np.float32]


def part_schema(dim: int) -> pa.Schema:
    """The columns of a part; one row is one clip."""
    import pyarrow as pa

    return pa.schema(
        [
            ("video_id", pa.string()),
            ("file_sha256", pa.string()),
            ("start_s", pa.float64()),
            ("end_s", pa.float64()),
            ("clip", pa.int32()),
            ("timestamps_s", pa.list_(pa.float64())),
            ("decoder", pa.string()),
            ("frames_decoded", pa.int32()),
            ("frames_substituted", pa.int32()),
            ("dtype", pa.string()),
            ("embedding", pa.list_(pa.float16(), dim)),
        ]
    )


def encode_part(videos: Sequence[VideoRows], dim: int) -> bytes:
    """The clips of some videos as a Parquet file.

    Raises:
        InvalidInputError: Vectors of another length than `dim`, or not finite.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    # Vectors do not repeat, so that neither dictionary nor compression gains anything there.
    pq.write_table(
        _table(videos, dim),
        buffer,
        compression=dict.fromkeys(_TEXTS, "zstd"),
        use_dictionary=_TEXTS,
        write_page_checksum=True,
    )
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def read_part(
    filesystem: Any, path: str, dim: int, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a part and verify the checksums of what is read.

    Raises:
        LocalError: It cannot be read, or is not a part of such a set.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with filesystem.open(path, "rb") as file:
            table = pq.read_table(
                file,
                columns=None if columns is None else list(columns),
                page_checksum_verification=True,
            )
    except (OSError, pa.ArrowException) as err:
        raise LocalError(f"{path}: cannot be read: {str(err).splitlines()[0][:200]}") from err
    schema = part_schema(dim)
    wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    if not table.schema.equals(wanted):
        raise LocalError(f"{path}: its columns are not those of this set")
    return table


def vectors_of(table: pa.Table, dim: int) -> NDArray[np.float16]:
    """The vectors of a table of clips: float16 (rows, D)."""
    chunks = [
        chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
        for chunk in table.column("embedding").chunks
    ]
    return np.concatenate(chunks) if chunks else np.empty((0, dim), dtype=np.float16)


def latest_rows(table: pa.Table) -> NDArray[np.int64]:
    """The rows of a table that count, ordered by video, extent and clip.

    A video (or extent) that was embedded from two files counts with the file that was written
    last; of two rows for one clip the last written counts.
    """
    rows = np.arange(table.num_rows)
    if not len(rows):
        return rows
    video, file = _ranks(table, "video_id"), _ranks(table, "file_sha256")
    # None, the whole video, comes before any extent.
    start, end = (
        np.nan_to_num(table.column(name).to_numpy(), nan=-1.0) for name in ("start_s", "end_s")
    )
    clip = table.column("clip").to_numpy()
    by_span = np.lexsort((rows, end, start, video))
    last_of_span = _last_of_runs(video[by_span], start[by_span], end[by_span])
    lengths = np.diff(np.append(-1, np.flatnonzero(last_of_span)))
    current = np.repeat(file[by_span][last_of_span], lengths)
    kept = by_span[file[by_span] == current]
    kept = kept[np.lexsort((kept, clip[kept], end[kept], start[kept], video[kept]))]
    unique: NDArray[np.int64] = kept[_last_of_runs(video[kept], start[kept], end[kept], clip[kept])]
    return unique


def _ranks(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Each row's text as its place among the different texts in order."""
    column = table.column(name).combine_chunks().dictionary_encode()
    texts = column.dictionary.to_numpy(zero_copy_only=False)
    places = np.empty(len(texts), dtype=np.int64)
    places[np.argsort(texts)] = np.arange(len(texts))
    ranks: NDArray[np.int64] = places[column.indices.to_numpy()]
    return ranks


def _last_of_runs(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether a row is the last of a run of equal rows."""
    differs = np.zeros(len(columns[0]), dtype=bool)
    differs[-1:] = True
    for column in columns:
        differs[:-1] |= column[1:] != column[:-1]
    return differs


def _table(videos: Sequence[VideoRows], dim: int) -> pa.Table:
    import pyarrow as pa

    with np.errstate(over="ignore"):
        vectors = np.concatenate([video.embeddings for video in videos]).astype(np.float16)
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidInputError(f"vectors are of shape {vectors.shape}, not (clips, {dim})")
    if not np.isfinite(vectors).all():
        raise InvalidInputError("vectors are not finite, or too large for float16")
    clips = [len(video.embeddings) for video in videos]

    def repeated(name: str) -> list[Any]:
        return [
            getattr(video, name)
            for video, count in zip(videos, clips, strict=True)
            for _ in range(count)
        ]

    schema = part_schema(dim)
    plain = {
        name: repeated(name)
        for name in schema.names
        if name not in ("clip", "timestamps_s", "embedding")
    }
    return pa.table(
        {
            **plain,
            "clip": [clip for count in clips for clip in range(count)],
            "timestamps_s": [row for video in videos for row in video.timestamps_s],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
        },
        schema=schema,
    )


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a folder or URL, and the path in it."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(str(url))
    except (ValueError, ImportError) as err:
        raise InvalidInputError(f"{url}: not a place for embedding sets: {err}") from err
    return filesystem, path.rstrip("/")


def write_whole(filesystem: Any, path: str, content: bytes) -> None:
    """Make a file appear with its content or not at all."""
    if "file" not in _protocols(filesystem):
        filesystem.pipe_file(path, content)
        return
    target = Path(path)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


@contextmanager
def as_local_error(path: str) -> Iterator[None]:
    """What the file system refuses is this machine's fault."""
    try:
        yield
    except OSError as err:
        raise LocalError(f"{path}: {err.strerror or err}") from err
