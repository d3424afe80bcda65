"""Embedding sets: Parquet parts in a folder that bears their fingerprint.

A set is `<root>/<dataset>/<set fingerprint>/` with `spec.json` and parts. A part is written whole
under another name and renamed (or, in a bucket, put in one piece), so that a part that can be
seen is a part that is complete; the checksums of its pages are verified whenever it is read.
Nothing is ever overwritten: many processes may append to one set.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coinml.errors import InvalidInputError, LocalError
from coinml.parts import (
    VideoRows,
    as_local_error,
    encode_part,
    filesystem_of,
    latest_rows,
    part_schema,
    read_part,
    vectors_of,
    write_whole,
)
from coinml.specs import SetSpec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Done", "EmbeddingSet", "PartProblem", "SetSpec", "VideoRows", "list_sets"]

logger = logging.getLogger(__name__)

Done = tuple[str, float | None, float | None, str]
"""What is done: (video id, start_s, end_s, sha256 of the file)."""

_SPEC = "spec.json"
_KEYS = ["video_id", "start_s", "end_s", "file_sha256"]
_ORDER = [*_KEYS, "clip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProblem:
    """A part that cannot be read.

    Attributes:
        part: Its name.
        reason: Why, for people.
    """

    part: str
    reason: str


def list_sets(root_url: str, dataset: str | None = None) -> list[EmbeddingSet]:
    """The sets below a root, the latest last.

    Args:
        root_url: Folder or fsspec URL that holds a folder for each dataset.
        dataset: Only this one's.
    """
    filesystem, root = filesystem_of(root_url)
    pattern = f"{root}/{dataset or '*'}/*/{_SPEC}"
    with as_local_error(root_url):
        found = [(filesystem.modified(path), path) for path in filesystem.glob(pattern)]
    return [
        EmbeddingSet(filesystem, path.removesuffix(f"/{_SPEC}"), _read_spec(filesystem, path))
        for _, path in sorted(found)
    ]


class EmbeddingSet:
    """One set; see `open`.

    Attributes:
        spec: Which embeddings it holds.
        path: Its folder, as fsspec names it.
    """

    def __init__(self, filesystem: Any, path: str, spec: SetSpec) -> None:
        self._filesystem = filesystem
        self.path = path
        self.spec = spec

    def __repr__(self) -> str:
        return f"EmbeddingSet({self.path!r})"

    @classmethod
    def open(
        cls,
        root_url: str,
        dataset: str,
        spec: SetSpec | None = None,
        fingerprint: str | None = None,
        *,
        create: bool = False,
    ) -> EmbeddingSet:
        """Open a set by its spec or its fingerprint.

        Args:
            root_url: Folder or fsspec URL that holds a folder for each dataset.
            dataset: Name of the dataset.
            spec: Which set.
            fingerprint: Which set, where the spec is not at hand.
            create: Make it if it is not there (needs the spec).

        Raises:
            InvalidInputError: There is no such set.
            LocalError: The place cannot be read or written.
        """
        if spec is not None and spec.dataset != dataset:
            raise InvalidInputError(f"the spec is of {spec.dataset!r}, not of {dataset!r}")
        wanted = spec.fingerprint if spec is not None else fingerprint
        if wanted is None:
            raise InvalidInputError("a set is opened by its spec or by its fingerprint")
        filesystem, root = filesystem_of(root_url)
        path = f"{root}/{dataset}/{wanted}"
        with as_local_error(path):
            there = filesystem.exists(f"{path}/{_SPEC}")
            if not there and create and spec is not None:
                filesystem.makedirs(path, exist_ok=True)
                text = json.dumps(spec.as_dict(), indent=2, sort_keys=True) + "\n"
                write_whole(filesystem, f"{path}/{_SPEC}", text.encode())
                there = True
        if not there:
            known = [found.spec.fingerprint for found in list_sets(root_url, dataset)]
            raise InvalidInputError(
                f"no embedding set {wanted} of {dataset!r} below {root_url}; "
                f"there are: {', '.join(known) or 'none'}"
            )
        return cls(filesystem, path, spec or _read_spec(filesystem, f"{path}/{_SPEC}"))

    def parts(self) -> list[str]:
        """Names of the parts, in the order in which they were written."""
        self._filesystem.invalidate_cache(self.path)
        with as_local_error(self.path):
            return sorted(
                name.rsplit("/", 1)[1]
                for name in self._filesystem.glob(f"{self.path}/part-*.parquet")
            )

    def done(self, *, set_aside: bool = False) -> set[Done]:
        """What is in the set.

        Args:
            set_aside: Rename parts that cannot be read, so that what they held is done again,
                instead of raising.

        Raises:
            LocalError: A part cannot be read.
        """
        found: set[Done] = set()
        for part in self.parts():
            try:
                table = self._read(part, _KEYS)
            except LocalError as err:
                if not set_aside:
                    raise
                logger.warning("%s; it is set aside and its videos are embedded again", err)
                self.set_aside(part)
                continue
            columns = [table.column(name).to_pylist() for name in _KEYS]
            found.update(zip(*columns, strict=True))
        return found

    def append(self, videos: Sequence[VideoRows]) -> str | None:
        """Write the clips of some videos as one part.

        Returns:
            The part's name, None where there was nothing to write.

        Raises:
            InvalidInputError: Vectors of another length than the set's, or not finite.
            LocalError: The part cannot be written (disk full, no permission).
        """
        if not videos:
            return None
        content = encode_part(videos, self.spec.encoder.dim)
        # Time first, so that names sort in the order of writing.
        name = f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        with as_local_error(f"{self.path}/{name}"):
            write_whole(self._filesystem, f"{self.path}/{name}", content)
        return name

    def clips(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, one a clip, ordered by video and clip; the latest where one is there twice.

        Args:
            columns: Only these.

        Raises:
            LocalError: A part cannot be read.
        """
        needed = None if columns is None else [*dict.fromkeys([*_ORDER, *columns])]
        table = self._all(needed)
        table = table.take(latest_rows(table))
        return table.select(list(columns)) if columns is not None else table

    def videos(self, sha256s: Mapping[str, str] | None = None) -> pd.DataFrame:
        """One row a video (or extent of it), the mean over its clips.

        The columns are `video_id, file_sha256, start_s, end_s, clips, e0000 …`; start and end are
        NaN where the whole video was embedded.

        Args:
            sha256s: Hash of each video's present file; what was embedded from another file,
                or of a video that is not named, is left out. None takes the latest of all.

        Raises:
            LocalError: A part cannot be read.
        """
        import pandas as pd

        table = self._all([*_ORDER, "embedding"])
        rows = latest_rows(table)
        ids = table.column("video_id").to_numpy()[rows]
        hashes = table.column("file_sha256").to_numpy()[rows]
        if sha256s is not None:
            pairs = zip(ids, hashes, strict=True)
            chosen = np.fromiter((sha256s.get(i) == h for i, h in pairs), bool, len(ids))
            ids, hashes, rows = ids[chosen], hashes[chosen], rows[chosen]
        begins, ends = (table.column(name).to_numpy()[rows] for name in ("start_s", "end_s"))
        # Rows are ordered by video and extent, so that the clips of one are one run. As numbers
        # that are equal where both are None.
        spans = np.nan_to_num(np.stack([begins, ends]), nan=-1.0)
        differs = (ids[1:] != ids[:-1]) | (hashes[1:] != hashes[:-1])
        differs |= (spans[:, 1:] != spans[:, :-1]).any(axis=0)
        runs = np.flatnonzero(differs) + 1
        starts = np.concatenate([[0], runs]).astype(np.int64) if len(ids) else runs
        counts = np.diff(np.append(starts, len(ids)))
        vectors = vectors_of(table, self.spec.encoder.dim)
        means = np.zeros((len(starts), vectors.shape[1]), dtype=np.float32)
        # Clip by clip, straight from the parts: no copy of all vectors is made.
        for clip in range(max(counts, default=0)):
            has = counts > clip
            means[has] += vectors[rows[starts[has] + clip]]
        means /= np.maximum(counts, 1)[:, None]
        front = {
            "video_id": ids[starts],
            "file_sha256": hashes[starts],
            "start_s": begins[starts],
            "end_s": ends[starts],
            "clips": counts,
        }
        names = [f"e{index:04d}" for index in range(self.spec.encoder.dim)]
        return pd.concat([pd.DataFrame(front), pd.DataFrame(means, columns=names)], axis=1)

    def verify(self) -> list[PartProblem]:
        """Read everything and name the parts that are broken."""
        problems = []
        for part in self.parts():
            try:
                table = self._read(part)
                if not np.isfinite(vectors_of(table, self.spec.encoder.dim)).all():
                    problems.append(PartProblem(part=part, reason="holds vectors not finite"))
            except LocalError as err:
                problems.append(PartProblem(part=part, reason=str(err)))
        return problems

    def set_aside(self, part: str) -> None:
        """Take a part out of the set without deleting it."""
        with as_local_error(part):
            self._filesystem.mv(f"{self.path}/{part}", f"{self.path}/bad-{part}")

    def _read(self, part: str, columns: Sequence[str] | None = None) -> pa.Table:
        return read_part(self._filesystem, f"{self.path}/{part}", self.spec.encoder.dim, columns)

    def _all(self, columns: Sequence[str] | None) -> pa.Table:
        """The rows of all parts as they are, in the order of writing."""
        import pyarrow as pa

        empty = part_schema(self.spec.encoder.dim).empty_table()
        tables = [empty if columns is None else empty.select(list(columns))]
        return pa.concat_tables([*tables, *(self._read(part, columns) for part in self.parts())])


def _read_spec(filesystem: Any, path: str) -> SetSpec:
    try:
        return SetSpec.from_dict(json.loads(filesystem.cat_file(path)))
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise LocalError(f"{path}: not the spec of an embedding set: {err}") from err
