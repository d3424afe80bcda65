"""The scores of a registered model's new videos: Parquet parts and JSON records in a folder.

    scores/<model>/part-00000000.parquet    a row for each scored file
    scores/<model>/window-00000000.json     what a comparison with the training set found
    scores/<model>/latest.json              the last run, for pages and `coinml status`

Each is written whole and renamed, so that a killed run leaves none that is cut off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.errors import LocalError
from coinml.runtime.atomic_files import write_whole, written_whole

if TYPE_CHECKING:
    import pandas as pd

_PART = re.compile(r"part-(\d+)(?:-(\d+))?\.parquet")
_LATEST = "latest.json"

MOST_PARTS = 200
"""With more parts, reading them takes seconds, so that they are merged."""


class ScoreStore:
    """The scores of one model. Constructing it touches no file.

    Args:
        folder: Its folder; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Within it, no other process writes.

        Raises:
            LocalError: Another process does, or the folder cannot be made.
        """
        from filelock import FileLock, Timeout

        with self._as_local_error():
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / ".writing.lock", timeout=0):
                yield
        except Timeout as err:
            raise LocalError(f"{self.folder}: another process is scoring into it") from err

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows as a part of their own; the columns are those of `read`."""
        import pyarrow as pa

        parts = self._parts()
        number = parts[-1][1] + 1 if parts else 0
        self._write(f"part-{number:08d}.parquet", pa.Table.from_pylist(list(rows), _schema()))

    def merge_parts(self, *, most: int = MOST_PARTS) -> None:
        """Merge the parts into one if there are more than `most`."""
        import pyarrow as pa

        parts = self._parts()
        if len(parts) <= most:
            return
        first, last = parts[0][0], parts[-1][1]
        table = pa.concat_tables(self._read(path, None) for *_, path in parts)
        # The range in its name makes the others obsolete at once, also where a kill leaves them.
        self._write(f"part-{first:08d}-{last:08d}.parquet", table)
        self._remove_merged()

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows in the order in which they were scored.

        Columns: `source, path, size_bytes, stamp` identify a file; `sha256` its content; `label,
        score, top5` (JSON) are the answer, or `error` is why there is none; `model, version,
        encoder_fingerprint` are who answered, `scored_at` when (UTC), and `embedding` is the
        video's vector (float16).
        """
        import pyarrow as pa

        tables = [self._read(path, columns) for *_, path in self._parts()]
        wanted = _schema() if columns is None else pa.schema([_schema().field(c) for c in columns])
        table: pd.DataFrame = pa.concat_tables([wanted.empty_table(), *tables]).to_pandas()
        return table

    def windows(self) -> list[dict[str, Any]]:
        """The records of the compared windows, in order."""
        return [_read_json(path) for path in sorted(self.folder.glob("window-*.json"))]

    def add_window(self, record: dict[str, Any]) -> None:
        """Write the record of a window."""
        number = len(list(self.folder.glob("window-*.json")))
        self._write_json(f"window-{number:08d}.json", record)

    def latest(self) -> dict[str, Any] | None:
        """What `write_latest` wrote; None if nothing was scored yet."""
        path = self.folder / _LATEST
        return _read_json(path) if path.is_file() else None

    def write_latest(self, record: dict[str, Any]) -> None:
        """Write the record of a run in place of the former one."""
        self._write_json(_LATEST, record)

    def _parts(self) -> list[tuple[int, int, Path]]:
        """First and last number and path of the parts, without those that were merged."""
        found = []
        for path in self.folder.glob("part-*.parquet"):
            if named := _PART.fullmatch(path.name):
                first = int(named[1])
                found.append((first, int(named[2] or first), path))
        # Of parts with the same first number, the merged one comes first.
        found.sort(key=lambda one: (one[0], -one[1]))
        kept: list[tuple[int, int, Path]] = []
        for one in found:
            if not kept or one[0] > kept[-1][1]:
                kept.append(one)
        return kept

    def _remove_merged(self) -> None:
        kept = {path for *_, path in self._parts()}
        for path in self.folder.glob("part-*.parquet"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _read(self, path: Path, columns: Sequence[str] | None) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                return file.read(columns=None if columns is None else list(columns))
        except (OSError, pa.ArrowException) as err:
            raise LocalError(f"{path}: cannot be read: {str(err).splitlines()[0]}") from err

    def _write(self, name: str, table: Any) -> None:
        import pyarrow.parquet as pq

        with self._as_local_error(), written_whole(self.folder / name) as partial:
            pq.write_table(table, partial, compression="zstd", write_page_checksum=True)

    def _write_json(self, name: str, record: dict[str, Any]) -> None:
        with self._as_local_error():
            write_whole(self.folder / name, json.dumps(record, indent=2, ensure_ascii=False))

    @contextmanager
    def _as_local_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise LocalError(f"{self.folder}: cannot be written: {err.strerror or err}") from err


def find_stores(data_dir: Path) -> list[ScoreStore]:
    """The scores of a home, by model."""
    return [ScoreStore(path.parent) for path in sorted(data_dir.glob(f"scores/*/{_LATEST}"))]


def store_of(data_dir: Path, model: str) -> ScoreStore:
    """The scores of a model of a home."""
    return ScoreStore(data_dir / "scores" / model)


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("source", pa.string()),
            ("path", pa.string()),
            ("size_bytes", pa.int64()),
            ("stamp", pa.string()),
            ("sha256", pa.string()),
            ("label", pa.string()),
            ("score", pa.float64()),
            ("top5", pa.string()),
            ("error", pa.string()),
            ("model", pa.string()),
            ("version", pa.int64()),
            ("encoder_fingerprint", pa.string()),
            ("scored_at", pa.timestamp("us", tz="UTC")),
            ("embedding", pa.list_(pa.float16())),
        ]
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise LocalError(f"{path}: cannot be read: {err}") from err
