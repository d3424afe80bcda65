"""Exporting a set to one file for other programs: npz, CSV, or a webdataset tar."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args
from urllib.parse import quote

import numpy as np

from coinml.embedding_sets.current import runs_of_spans
from coinml.embedding_sets.parts import vectors_of
from coinml.embedding_sets.sets import EmbeddingSet
from coinml.errors import InvalidInputError
from coinml.runtime.escaping import write_csv
from coinml.runtime.out_files import check_out_file, out_file

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

Format = Literal["npz", "csv", "tar"]
Level = Literal["clips", "videos"]

_CSV_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """The exported file.

    Attributes:
        path: Path of the file.
        format: `npz`, `csv` or `tar`.
        level: `clips` or `videos`.
        videos: Number of videos (or extents) in it.
        rows: Number of vectors.
        size_bytes: Its size.
    """

    path: str
    format: str
    level: str
    videos: int
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Rows:
    """The content to export, ordered by video, extent and clip.

    Attributes:
        columns: Arrays of one value per row, by name; `clip` is among them at clip level.
        timestamps_s: float64 (rows, frames) at clip level.
        vectors: (rows, D): float16 as stored at clip level, float32 means at video level.
        starts: First row of each video (or extent).
    """

    columns: dict[str, NDArray[Any]]
    timestamps_s: list[NDArray[np.float64]] | None
    vectors: NDArray[Any]
    starts: NDArray[np.int64]


def export_set(
    embedding_set: EmbeddingSet,
    path: Path,
    *,
    format: str | None = None,
    level: str = "clips",
    labels: Mapping[str, str] | None = None,
    replace: bool = False,
) -> ExportReport:
    """Export a set to one file, which appears when it is complete.

    Args:
        embedding_set: The set.
        path: Path of the file.
        format: `npz` (arrays by name), `csv` (one line per row) or `tar` (one webdataset sample
            per video: `.npy` and `.json`); by default what the path ends in.
        level: `clips` as stored, or `videos`: the mean over each video's clips.
        labels: The class of each video, if known.
        replace: Whether an existing file may be replaced.

    Raises:
        InvalidInputError: As `check_export`, or the set is empty.
        LocalError: The set cannot be read, or the file cannot be written.
    """
    format = check_export(path, format=format, level=level, replace=replace)
    rows = _rows(embedding_set, level=level, labels=labels or {})
    if not len(rows.vectors):
        raise InvalidInputError(f"set {embedding_set.spec.fingerprint} is empty")
    write: dict[str, Callable[[BinaryIO, _Rows, dict[str, Any]], None]] = {
        "npz": _write_npz,
        "csv": _write_csv,
        "tar": _write_tar,
    }
    endings = (f".{format}",)
    with (
        out_file(path, endings=endings, replace=replace) as partial,
        partial.open("wb") as file,
    ):
        write[format](file, rows, embedding_set.spec.as_dict())
    size_bytes = path.stat().st_size
    return ExportReport(
        path=str(path),
        format=format,
        level=level,
        videos=len(rows.starts),
        rows=len(rows.vectors),
        size_bytes=size_bytes,
    )


def check_export(path: Path, *, format: str | None, level: str, replace: bool = False) -> str:
    """Require that a set can be exported to a path, before it is read; see `export_set`.

    Returns:
        The format, which by default is what the path ends in.

    Raises:
        InvalidInputError: The format or level is unknown, or as `check_out_file`.
        LocalError: The file cannot be written.
    """
    formats, levels = get_args(Format), get_args(Level)
    if format is not None and format not in formats:
        raise InvalidInputError(f"format {format!r} is unknown; known: {', '.join(formats)}")
    if level not in levels:
        raise InvalidInputError(f"level {level!r} is unknown; known: {', '.join(levels)}")
    endings = tuple(f".{one}" for one in formats if format in (None, one))
    check_out_file(path, endings=endings, replace=replace)
    return path.suffix[1:].lower()


def _rows(embedding_set: EmbeddingSet, *, level: str, labels: Mapping[str, str]) -> _Rows:
    table = embedding_set.clips()
    vectors = vectors_of(table, embedding_set.spec.encoder.dim)
    ids = _texts(table, "video_id")
    starts_s, ends_s = (table.column(name).to_numpy() for name in ("start_s", "end_s"))
    starts, _ = runs_of_spans(table)
    columns: dict[str, NDArray[Any]] = {"video_id": ids}
    if labels:
        columns["label"] = np.array([labels.get(video_id, "") for video_id in ids], dtype=np.str_)
    columns |= {"file_sha256": _texts(table, "file_sha256"), "start_s": starts_s, "end_s": ends_s}
    columns |= {name: _texts(table, name) for name in ("decoder", "dtype")}
    for name in ("frames_decoded", "frames_substituted"):
        columns[name] = table.column(name).to_numpy()
    if level == "clips":
        columns["clip"] = table.column("clip").to_numpy()
        times = table.column("timestamps_s").combine_chunks()
        timestamps_s = np.split(times.flatten().to_numpy(), times.offsets.to_numpy()[1:-1])
        return _Rows(columns=columns, timestamps_s=timestamps_s, vectors=vectors, starts=starts)
    counts = np.diff(np.append(starts, len(ids)))
    means = [
        vectors[start : start + count].mean(axis=0, dtype=np.float32)
        for start, count in zip(starts, counts, strict=True)
    ]
    return _Rows(
        columns={name: values[starts] for name, values in columns.items()} | {"clips": counts},
        timestamps_s=None,
        vectors=np.stack(means) if means else np.empty((0, 0), dtype=np.float32),
        starts=np.arange(len(starts)),
    )


def _texts(table: pa.Table, name: str) -> NDArray[np.str_]:
    return np.array(table.column(name).to_pylist(), dtype=np.str_)


def _write_npz(file: BinaryIO, rows: _Rows, spec: dict[str, Any]) -> None:
    times = {} if rows.timestamps_s is None else {"timestamps_s": np.stack(rows.timestamps_s)}
    np.savez(
        file,
        allow_pickle=False,
        **rows.columns,
        **times,
        embeddings=rows.vectors,
        spec=np.array(json.dumps(spec, sort_keys=True)),
    )


def _write_csv(file: BinaryIO, rows: _Rows, _: dict[str, Any]) -> None:
    import pandas as pd

    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    names = [f"e{index:04d}" for index in range(rows.vectors.shape[1])]
    for start in range(0, len(rows.vectors), _CSV_ROWS):
        piece = slice(start, start + _CSV_ROWS)
        front = pd.DataFrame({name: values[piece] for name, values in rows.columns.items()})
        if rows.timestamps_s is not None:
            front["first_frame_s"] = [times[0] for times in rows.timestamps_s[piece]]
            front["last_frame_s"] = [times[-1] for times in rows.timestamps_s[piece]]
        vectors = pd.DataFrame(rows.vectors[piece].astype(np.float32), columns=names)
        write_csv(pd.concat([front, vectors], axis=1), text, header=start == 0)
    text.detach()


def _write_tar(file: BinaryIO, rows: _Rows, spec: dict[str, Any]) -> None:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for key, vectors, facts in _samples(rows):
            array = io.BytesIO()
            np.save(array, vectors, allow_pickle=False)
            facts["set"] = spec["fingerprint"]
            for suffix, content in (
                ("json", json.dumps(facts, allow_nan=False).encode()),
                ("npy", array.getvalue()),
            ):
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def _samples(rows: _Rows) -> Iterator[tuple[str, NDArray[Any], dict[str, Any]]]:
    """Key, array and metadata of each video (or extent)."""
    ends = np.append(rows.starts[1:], len(rows.vectors))
    for start, end in zip(rows.starts, ends, strict=True):
        facts = {
            name: values[start].item() for name, values in rows.columns.items() if name != "clip"
        }
        for name in ("start_s", "end_s"):
            if np.isnan(facts[name]):
                facts[name] = None
        key = _member_name(facts["video_id"])
        if facts["start_s"] is not None:
            key += f"@{round(1000 * facts['start_s'])}-{round(1000 * (facts['end_s'] or 0))}ms"
        if rows.timestamps_s is None:
            yield key, rows.vectors[start], facts
        else:
            facts["timestamps_s"] = [times.tolist() for times in rows.timestamps_s[start:end]]
            yield key, rows.vectors[start:end], facts


def _member_name(video_id: str) -> str:
    """An id as the name of a tar member below the folder where it is unpacked.

    Dots are quoted, since a sample's key ends at the first one for webdataset; so no part is `..`.
    An empty part would make the path absolute, or two ids one.
    """
    return "/".join(
        quote(part, safe="").replace(".", "%2E") or "%2F" for part in video_id.split("/")
    )
