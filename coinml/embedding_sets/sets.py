"""Reading one embedding set and appending to it."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from coinml.embedding_sets.current import KEYS, ORDER, latest_rows
from coinml.embedding_sets.matrix import VideoMatrix, read_matrix
from coinml.embedding_sets.parts import (
    BrokenPartError,
    PartGoneError,
    VideoRows,
    encode_part,
    iterate_part,
    part_schema,
    read_part,
    vectors_of,
)
from coinml.embedding_sets.places import (
    as_local_error,
    filesystem_of,
    folders_in,
    is_local,
    sizes_in,
    write_whole,
)
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets.spec_file import (
    SPEC_NAME,
    read_spec,
    set_aside_broken_spec,
    write_spec,
)
from coinml.errors import InvalidInputError
from coinml.runtime.addresses import masked
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

logger = logging.getLogger(__name__)

Done = tuple[str, float | None, float | None, str]
"""An embedded video or extent: (video id, start_s, end_s, sha256 of the file)."""

Read = TypeVar("Read")

_TRIES = 20
_LOCAL_READERS, _REMOTE_READERS = 4, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProblem:
    """A part that cannot be read.

    Attributes:
        part: Its name.
        reason: Why, as a text for people.
    """

    part: str
    reason: str


class EmbeddingSet:
    """One set; see `open`.

    Attributes:
        spec: What its embeddings are.
        filesystem: The fsspec file system that it is in.
        path: Its folder there.
    """

    def __init__(self, filesystem: Any, path: str, spec: SetSpec) -> None:
        self.filesystem = filesystem
        self.path = path
        self.spec = spec

    def __repr__(self) -> str:
        return f"EmbeddingSet({masked(self.path)!r})"

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
            spec: Spec of the set.
            fingerprint: Fingerprint of the set, if the spec is not known.
            create: Create the set if it does not exist, and write its spec again if that is
                damaged; needs the spec.

        Raises:
            InvalidInputError: There is no such set.
            LocalError: The place cannot be read or written, or its `spec.json` is damaged.
        """
        if spec is not None and spec.dataset != dataset:
            raise InvalidInputError(f"the spec is of {spec.dataset!r}, not of {dataset!r}")
        wanted = spec.fingerprint if spec is not None else fingerprint
        if wanted is None:
            raise InvalidInputError("a set is opened by its spec or by its fingerprint")
        filesystem, root = filesystem_of(root_url)
        path = f"{root}/{dataset}/{wanted}"
        with as_local_error(path, filesystem):
            there = filesystem.exists(f"{path}/{SPEC_NAME}")
            if there and create:
                set_aside_broken_spec(filesystem, path)
                there = bool(filesystem.exists(f"{path}/{SPEC_NAME}"))
            if not there and create and spec is not None:
                write_spec(filesystem, path, spec)
                there = True
        if not there:
            folders = folders_in(filesystem, f"{root}/{dataset}")
            known = sorted(folder.rpartition("/")[2] for folder in folders)
            raise InvalidInputError(
                f"no embedding set {wanted} of {dataset!r} below {masked(root_url)}; "
                f"there are: {', '.join(known) or 'none'}; collect and embed first"
            )
        return cls(filesystem, path, read_spec(filesystem, path))

    def parts(self) -> list[str]:
        """Names of the parts, in the order of writing."""
        return list(self.part_sizes())

    def part_sizes(self) -> dict[str, int]:
        """Size of each part in bytes, by name, in the order of writing."""
        # While compaction replaces parts, one listing may show neither the old nor the new ones.
        # Two equal listings are consistent.
        found = self._listing()
        while found != (again := self._listing()):
            found = again
        return found

    def done(self, *, set_aside: bool = False) -> set[Done]:
        """The videos and extents that are in the set.

        Args:
            set_aside: Rename broken parts instead of raising, so that their videos are embedded
                again.

        Raises:
            BrokenPartError: A part is damaged.
            LocalError: A part cannot be reached.
        """

        def read(parts: list[str]) -> set[Done]:
            found: set[Done] = set()
            for part, table in self._tables(parts, KEYS):
                if isinstance(table, BrokenPartError):
                    if not set_aside:
                        raise table
                    logger.warning("%s", table)
                    self.set_aside(part)
                    continue
                columns = [table.column(name).to_pylist() for name in KEYS]
                found.update(zip(*columns, strict=True))
            return found

        return self.consistently(read)

    def append(self, videos: Sequence[VideoRows]) -> str | None:
        """Write the clips of some videos as one part.

        Returns:
            The part's name; None if there are no videos.

        Raises:
            InvalidInputError: A vector has another length than the set's, or is not finite.
            LocalError: The part cannot be written (disk full, no permission).
        """
        if not videos:
            return None
        # The time comes first, so that names sort in the order of writing.
        name = f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        self.write_part(name, encode_part(videos, self.spec.encoder.dim))
        return name

    def write_part(self, name: str, content: pa.Buffer) -> None:
        """Write a part; it appears whole or not at all.

        Raises:
            LocalError: It cannot be written.
        """
        with as_local_error(f"{self.path}/{name}", self.filesystem):
            write_whole(self.filesystem, f"{self.path}/{name}", content)

    def clips(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, one per clip, ordered by video and clip; of duplicates the latest.

        Args:
            columns: The columns to read; None reads all.

        Raises:
            LocalError: A part cannot be read.
        """
        needed = None if columns is None else [*dict.fromkeys([*ORDER, *columns])]
        table = self.consistently(lambda parts: self._all(parts, needed))
        table = table.take(latest_rows(table))
        return table.select(list(columns)) if columns is not None else table

    def videos(self, sha256s: Mapping[str, str] | None = None) -> pd.DataFrame:
        """One row per video (or extent), the mean over its clips.

        The columns are `video_id, file_sha256, start_s, end_s, clips, e0000 …`; start and end are
        NaN if the whole video was embedded.

        Args:
            sha256s: Hash of each video's current file. Embeddings of other files, and of videos
                not in the mapping, are left out. None takes the latest embedding of every video.

        Raises:
            LocalError: A part cannot be read.
        """
        import pandas as pd

        found = self.matrix(sha256s)
        names = [f"e{index:04d}" for index in range(self.spec.encoder.dim)]
        table = pd.DataFrame(found.means, columns=names, copy=False)
        for name in ("clips", "end_s", "start_s", "file_sha256", "video_id"):
            table.insert(0, name, getattr(found, name))
        return table

    def matrix(self, sha256s: Mapping[str, str] | None = None) -> VideoMatrix:
        """The content of `videos` as arrays.

        Keys are read first, then vectors one row group at a time, so that memory holds the means
        and a few row groups only.

        Raises:
            LocalError: A part cannot be read.
        """
        return self.consistently(lambda parts: read_matrix(self, parts, sha256s))

    def set_aside(self, part: str) -> None:
        """Rename a part to `bad-…`, so that it is no longer in the set."""
        with as_local_error(f"{self.path}/{part}", self.filesystem):
            try:
                self.filesystem.mv(f"{self.path}/{part}", f"{self.path}/bad-{part}")
                logger.warning("%s is set aside as bad-%s", part, part)
            except FileNotFoundError:
                logger.info("%s was set aside by another process", part)

    def verify(self) -> list[PartProblem]:
        """Read every part completely and list the broken ones.

        Raises:
            LocalError: A part cannot be reached.
        """

        def check(part: str) -> PartProblem | None:
            try:
                for table in iterate_part(self.filesystem, f"{self.path}/{part}", dim):
                    if not np.isfinite(vectors_of(table, dim)).all():
                        return PartProblem(part=part, reason="holds vectors that are not finite")
            except BrokenPartError as err:
                return PartProblem(part=part, reason=str(err))
            return None

        dim = self.spec.encoder.dim
        found = self.consistently(lambda parts: self.in_threads(check, parts))
        return [problem for problem in found if problem is not None]

    def set_aside_broken(self, *, in_bucket: bool = False) -> list[PartProblem]:
        """Read every part completely, and rename the broken ones, so that they can be replaced.

        Args:
            in_bucket: In a bucket, too, where every byte of the set is transferred.

        Returns:
            The parts that were renamed.

        Raises:
            LocalError: A part cannot be reached or renamed.
        """
        problems = self.verify() if in_bucket or is_local(self.filesystem) else []
        for problem in problems:
            logger.warning("%s", problem.reason)
            self.set_aside(problem.part)
        return problems

    def read_keys(
        self, columns: Iterable[str]
    ) -> tuple[dict[str, int], dict[str, pa.Table], list[PartProblem]]:
        """Sizes of all parts in bytes, columns of the readable parts, and the broken parts.

        Raises:
            LocalError: A part cannot be reached.
        """

        def read(_: list[str]) -> tuple[dict[str, int], dict[str, pa.Table], list[PartProblem]]:
            sizes = self.part_sizes()
            tables, problems = {}, []
            for part, table in self._tables(list(sizes), columns):
                if isinstance(table, BrokenPartError):
                    problems.append(PartProblem(part=part, reason=str(table)))
                else:
                    tables[part] = table
            return sizes, tables, problems

        return self.consistently(read)

    def consistently(self, read: Callable[[list[str]], Read]) -> Read:
        """Call `read` with the names of the parts, again if one of them disappeared meanwhile.

        The rows of a part that compaction removed are in another part.
        """
        for _ in range(_TRIES):
            try:
                return read(self.parts())
            except PartGoneError as err:
                gone = err
                logger.info("%s: read again", gone)
        raise gone

    def _listing(self) -> dict[str, int]:
        with as_local_error(self.path, self.filesystem):
            sizes = sizes_in(self.filesystem, self.path)
        return {
            name: sizes[name]
            for name in sorted(sizes)
            if name.startswith("part-") and name.endswith(".parquet")
        }

    def _tables(
        self, parts: Sequence[str], columns: Iterable[str]
    ) -> list[tuple[str, pa.Table | BrokenPartError]]:
        """Columns of each part, or the error if it is broken."""
        wanted = list(columns)

        def read(part: str) -> tuple[str, pa.Table | BrokenPartError]:
            try:
                return part, self.read(part, wanted)
            except BrokenPartError as err:
                return part, err

        return self.in_threads(read, parts)

    def read(self, part: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One part, or some of its columns.

        Raises:
            LocalError: It is damaged, missing or cannot be reached.
        """
        return read_part(self.filesystem, f"{self.path}/{part}", self.spec.encoder.dim, columns)

    def _all(self, parts: Sequence[str], columns: Sequence[str] | None) -> pa.Table:
        """All rows of all parts, duplicates included, in the order of writing."""
        import pyarrow as pa

        empty = part_schema(self.spec.encoder.dim).empty_table()
        tables = [empty if columns is None else empty.select(list(columns))]
        tables += self.in_threads(lambda part: self.read(part, columns), parts)
        return pa.concat_tables(tables)

    def in_threads(self, work: Callable[[Any], Read], items: Iterable[Any]) -> list[Read]:
        """Map over items in threads; reading Parquet and waiting for a network release the GIL."""
        readers = min(cpu_count(), _LOCAL_READERS)
        if not is_local(self.filesystem):
            readers = _REMOTE_READERS
        with ThreadPoolExecutor(readers) as pool:
            return list(pool.map(work, items))
