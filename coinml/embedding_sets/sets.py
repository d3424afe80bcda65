"""One embedding set: what is in it, and how more comes into it."""

from __future__ import annotations

import json
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
    make_folder,
    masked,
    sizes_in,
    write_whole,
)
from coinml.embedding_sets.spec import SetSpec
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.cpus import cpu_count

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

logger = logging.getLogger(__name__)

Done = tuple[str, float | None, float | None, str]
"""What is done: (video id, start_s, end_s, sha256 of the file)."""

Read = TypeVar("Read")

SPEC_NAME = "spec.json"
_TRIES = 20
_LOCAL_READERS, _REMOTE_READERS = 4, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PartProblem:
    """A part that cannot be read.

    Attributes:
        part: Its name.
        reason: Why, for people.
    """

    part: str
    reason: str


class EmbeddingSet:
    """One set; see `open`.

    Attributes:
        spec: Which embeddings it holds.
        filesystem: Where it lies, as fsspec has it.
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
            spec: Which set.
            fingerprint: Which set, where the spec is not at hand.
            create: Make it if it is not there (needs the spec).

        Raises:
            InvalidInputError: There is no such set.
            LocalError: The place cannot be read or written, or the spec in it is damaged.
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
            if not there and create and spec is not None:
                make_folder(filesystem, path)
                text = json.dumps(spec.as_dict(), indent=2, sort_keys=True) + "\n"
                write_whole(filesystem, f"{path}/{SPEC_NAME}", text.encode())
                there = True
        if not there:
            folders = folders_in(filesystem, f"{root}/{dataset}")
            known = sorted(folder.rpartition("/")[2] for folder in folders)
            raise InvalidInputError(
                f"no embedding set {wanted} of {dataset!r} below {masked(root_url)}; "
                f"there are: {', '.join(known) or 'none'}"
            )
        return cls(filesystem, path, read_spec(filesystem, path))

    def parts(self) -> list[str]:
        """Names of the parts, in the order in which they were written."""
        return list(self.part_sizes())

    def part_sizes(self) -> dict[str, int]:
        """Bytes of each part, in the order in which they were written."""
        # A folder that is listed while a part takes the place of others may show neither it
        # nor them. Twice the same is what was there in between.
        found = self._listing()
        while found != (again := self._listing()):
            found = again
        return found

    def done(self, *, set_aside: bool = False) -> set[Done]:
        """What is in the set.

        Args:
            set_aside: Rename parts that are broken, so that what they held is done again,
                instead of raising.

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
                    logger.warning("%s; it is set aside and its videos are done again", table)
                    self.set_aside(part)
                    continue
                columns = [table.column(name).to_pylist() for name in KEYS]
                found.update(zip(*columns, strict=True))
            return found

        return self.consistently(read)

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
        # Time first, so that names sort in the order of writing.
        name = f"part-{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.parquet"
        self.write_part(name, encode_part(videos, self.spec.encoder.dim))
        return name

    def write_part(self, name: str, content: pa.Buffer) -> None:
        """Write a part in one piece.

        Raises:
            LocalError: It cannot be written.
        """
        with as_local_error(f"{self.path}/{name}", self.filesystem):
            write_whole(self.filesystem, f"{self.path}/{name}", content)

    def clips(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows, one a clip, ordered by video and clip; the latest where one is there twice.

        Args:
            columns: Only these.

        Raises:
            LocalError: A part cannot be read.
        """
        needed = None if columns is None else [*dict.fromkeys([*ORDER, *columns])]
        table = self.consistently(lambda parts: self._all(parts, needed))
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

        found = self.matrix(sha256s)
        names = [f"e{index:04d}" for index in range(self.spec.encoder.dim)]
        table = pd.DataFrame(found.means, columns=names, copy=False)
        for name in ("clips", "end_s", "start_s", "file_sha256", "video_id"):
            table.insert(0, name, getattr(found, name))
        return table

    def matrix(self, sha256s: Mapping[str, str] | None = None) -> VideoMatrix:
        """What `videos` holds as arrays.

        Keys are read first and vectors after them, a piece at a time, so that there is never
        more in memory than the means and some pieces.

        Raises:
            LocalError: A part cannot be read.
        """
        return self.consistently(lambda parts: read_matrix(self, parts, sha256s))

    def set_aside(self, part: str) -> None:
        """Take a part out of the set without deleting it."""
        with as_local_error(f"{self.path}/{part}", self.filesystem):
            try:
                self.filesystem.mv(f"{self.path}/{part}", f"{self.path}/bad-{part}")
            except FileNotFoundError:
                logger.info("%s was set aside by another process", part)

    def verify(self) -> list[PartProblem]:
        """Read everything and name the parts that are broken.

        Raises:
            LocalError: A part cannot be reached.
        """

        def check(part: str) -> PartProblem | None:
            try:
                for table in iterate_part(self.filesystem, f"{self.path}/{part}", dim):
                    if not np.isfinite(vectors_of(table, dim)).all():
                        return PartProblem(part=part, reason="holds vectors not finite")
            except BrokenPartError as err:
                return PartProblem(part=part, reason=str(err))
            return None

        dim = self.spec.encoder.dim
        found = self.consistently(lambda parts: self.in_threads(check, parts))
        return [problem for problem in found if problem is not None]

    def read_keys(
        self, columns: Iterable[str]
    ) -> tuple[dict[str, int], dict[str, pa.Table], list[PartProblem]]:
        """Bytes of each part, some columns of each that can be read, and why others cannot.

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
        """Read with the names of the parts; once more where a part went meanwhile.

        A part that was compacted is gone, and what it held is in another.
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
        """Columns of each part, or why there are none."""
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
            LocalError: It is damaged, gone or cannot be reached.
        """
        return read_part(self.filesystem, f"{self.path}/{part}", self.spec.encoder.dim, columns)

    def _all(self, parts: Sequence[str], columns: Sequence[str] | None) -> pa.Table:
        """The rows of all parts as they are, in the order of writing."""
        import pyarrow as pa

        empty = part_schema(self.spec.encoder.dim).empty_table()
        tables = [empty if columns is None else empty.select(list(columns))]
        tables += self.in_threads(lambda part: self.read(part, columns), parts)
        return pa.concat_tables(tables)

    def in_threads(self, work: Callable[[Any], Read], items: Iterable[Any]) -> list[Read]:
        """The work of each item, several at a time: decoding and waiting leave the lock alone."""
        readers = min(cpu_count(), _LOCAL_READERS)
        if not is_local(self.filesystem):
            readers = _REMOTE_READERS
        with ThreadPoolExecutor(readers) as pool:
            return list(pool.map(work, items))


def read_spec(filesystem: Any, path: str) -> SetSpec:
    """The spec in a set's folder.

    Raises:
        LocalError: There is none, it is damaged, or it is not the one that its folder is named
            after.
    """
    place = f"{path}/{SPEC_NAME}"
    with as_local_error(place, filesystem):
        content = filesystem.cat_file(place)
    try:
        spec = SetSpec.from_dict(json.loads(content))
        found = spec.fingerprint
    except (ValueError, KeyError, TypeError, AttributeError) as err:
        raise LocalError(f"{masked(place)}: not the spec of an embedding set: {err}") from err
    *_, dataset, fingerprint = path.split("/")
    if (spec.dataset, found) != (dataset, fingerprint):
        raise LocalError(
            f"{masked(place)}: describes set {found} of {spec.dataset!r} and not {fingerprint} of "
            f"{dataset!r}: it was altered or moved, or another version of coinml made it"
        )
    return spec
