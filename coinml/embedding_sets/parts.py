"""One part of an embedding set: a Parquet file whose checksums are verified on read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinml.embedding_sets.places import is_local
from coinml.errors import CoinmlError, InvalidInputError, LocalError
from coinml.runtime.addresses import masked

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from numpy.typing import NDArray

_TEXTS = ["video_id", "file_sha256", "decoder", "dtype"]

_ROW_GROUP_ROWS = 8192
"""Clips per row group, the unit of reading: 12 MB for vectors of length 768."""


_HEALING = "`coinml embed` sets it aside and embeds its videos again"


class BrokenPartError(LocalError):
    """A part exists but its content is not what was written."""


class PartGoneError(LocalError):
    """A part no longer exists: another process compacted or renamed it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoRows:
    """The embedded clips of one video (or extent).

    Attributes:
        video_id: Its id in the dataset.
        file_sha256: Hash of the file that was embedded.
        start_s: Start of the extent in seconds; None for the whole video.
        end_s: End of the extent in seconds; None for the whole video.
        timestamps_s: float64 (clips, frames): presentation time of each frame in seconds.
        decoder: Name of the decoder that was used.
        frames_decoded: Number of different frames that were decoded.
        frames_substituted: Number of frames replaced by the nearest decoded one.
        dtype: The encoder's number type ("float32").
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


def load_parquet() -> None:
    """Load what writes parts, which takes a moment the first time."""
    import pyarrow.parquet  # noqa: F401


def part_schema(dim: int) -> pa.Schema:
    """The columns of a part; it has one row per clip."""
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


def encode_part(videos: Sequence[VideoRows], dim: int) -> pa.Buffer:
    """The clips of some videos as the content of a Parquet file.

    Raises:
        InvalidInputError: A vector has another length than `dim`, or is not finite.
    """
    return encode_table(_table(videos, dim))


def encode_table(table: pa.Table) -> pa.Buffer:
    """A table with the columns of `part_schema` as the content of a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = pa.BufferOutputStream()
    # Neither dictionaries nor compression make vectors smaller.
    pq.write_table(
        table,
        buffer,
        compression=dict.fromkeys(_TEXTS, "zstd"),
        use_dictionary=_TEXTS,
        write_page_checksum=True,
        row_group_size=_ROW_GROUP_ROWS,
    )
    return buffer.getvalue()


def read_part(
    filesystem: Any, path: str, dim: int, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a part and verify the checksums of what is read.

    Raises:
        BrokenPartError: It is damaged, or has the columns of another set.
        PartGoneError: It does not exist.
        LocalError: It cannot be reached.
    """
    import pyarrow as pa

    groups = list(iterate_part(filesystem, path, dim, columns))
    return pa.concat_tables(groups) if groups else _schema_of(dim, columns).empty_table()


def iterate_part(
    filesystem: Any, path: str, dim: int, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Read a part as `read_part` does, one row group at a time."""
    wanted = _schema_of(dim, columns)
    with _opened(filesystem, path) as file:
        for number in range(file.num_row_groups):
            # Several parts are read in parallel already; more threads per part gain nothing.
            table = file.read_row_group(
                number, columns=None if columns is None else list(columns), use_threads=False
            )
            # Columns come in the order of the file; those it does not have are left out.
            if columns is not None and not set(columns) - set(table.column_names):
                table = table.select(wanted.names)
            if not table.schema.equals(wanted):
                raise BrokenPartError(
                    f"{masked(path)}: its columns are not those of this set; {_HEALING}"
                )
            yield table


def vectors_of(table: pa.Table, dim: int) -> NDArray[np.float16]:
    """The vectors of a table of clips: float16 (rows, D)."""
    chunks = [
        chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
        for chunk in table.column("embedding").chunks
    ]
    if len(chunks) == 1:
        only: NDArray[np.float16] = chunks[0]
        return only
    return np.concatenate(chunks) if chunks else np.empty((0, dim), dtype=np.float16)


@contextmanager
def _opened(filesystem: Any, path: str) -> Iterator[pq.ParquetFile]:
    """Open a part; errors within the block become those that `read_part` names."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if is_local(filesystem):
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                yield file
            return
        # pyarrow requests exactly the ranges it needs; a cache in between would request more.
        with (
            filesystem.open(path, "rb", cache_type="none") as source,
            pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True) as file,
        ):
            yield file
    except CoinmlError:
        raise
    except FileNotFoundError as err:
        raise PartGoneError(f"{masked(path)}: no longer exists") from err
    except Exception as err:
        said = masked(str(err) or type(err).__name__).splitlines()[0][:200]
        reason = f"{masked(path)}: cannot be read: {said}"
        # Arrow's errors about content have no errno; those of the operating system have one.
        if isinstance(err, pa.ArrowException) or (type(err) is OSError and err.errno is None):
            raise BrokenPartError(f"{reason}; {_HEALING}") from err
        if isinstance(err, OSError) or not is_local(filesystem):
            raise LocalError(reason) from err
        raise


def _schema_of(dim: int, columns: Sequence[str] | None) -> pa.Schema:
    import pyarrow as pa

    schema = part_schema(dim)
    return schema if columns is None else pa.schema([schema.field(name) for name in columns])


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
