"""Finding embedding sets, and summarising one."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from coinml.embedding_sets.current import ORDER, latest_rows, runs_of_spans
from coinml.embedding_sets.places import as_local_error, filesystem_of, folders_in
from coinml.embedding_sets.sets import EmbeddingSet, PartProblem
from coinml.embedding_sets.spec_file import SPEC_NAME, read_spec
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.addresses import masked

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_FACTS = ("decoder", "frames_decoded", "frames_substituted", "dtype")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetProblem:
    """A set that cannot be opened.

    Attributes:
        path: Its folder.
        reason: Why, as a text for people.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSummary:
    """One part.

    Attributes:
        part: Its name.
        size_bytes: Its size.
        rows: Number of clips in it.
        current: Number of those that no later part replaces.
    """

    part: str
    size_bytes: int
    rows: int
    current: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummary:
    """The content of a set in numbers.

    Attributes:
        videos: Number of videos.
        extents: Number of videos and extents of videos.
        clips: Number of their clips.
        newest: When the newest part was written; None without parts.
        decoders: Number of videos (or extents) by decoder.
        dtypes: Number of videos (or extents) by the encoder's number type.
        frames_decoded: Number of decoded frames.
        frames_substituted: Number of frames replaced by the nearest decoded one.
        with_substitutes: Number of videos (or extents) with such frames.
        parts: The readable parts.
        broken: The broken parts.
        size_bytes: Size of all parts.
    """

    videos: int
    extents: int
    clips: int
    newest: datetime | None
    decoders: Mapping[str, int]
    dtypes: Mapping[str, int]
    frames_decoded: int
    frames_substituted: int
    with_substitutes: int
    parts: tuple[PartSummary, ...]
    broken: tuple[PartProblem, ...]
    size_bytes: int


def list_sets(root_url: str, dataset: str | None = None) -> list[EmbeddingSet]:
    """The sets below a root, the latest last; a set that cannot be opened is logged and skipped.

    Args:
        root_url: Folder or fsspec URL that holds a folder for each dataset.
        dataset: Only the sets of this dataset.
    """
    sets, problems = find_sets(root_url, dataset)
    for problem in problems:
        logger.warning("%s", problem.reason)
    return sets


def find_sets(
    root_url: str, dataset: str | None = None
) -> tuple[list[EmbeddingSet], list[SetProblem]]:
    """The sets below a root, the latest last, and those that cannot be opened.

    Raises:
        LocalError: The root cannot be read.
    """
    filesystem, root = filesystem_of(root_url)
    with as_local_error(root_url, filesystem):
        datasets = [f"{root}/{dataset}"] if dataset else folders_in(filesystem, root)
        places = [place for folder in datasets for place in folders_in(filesystem, folder)]
        found = [
            (filesystem.modified(f"{place}/{SPEC_NAME}"), place)
            for place in places
            if filesystem.exists(f"{place}/{SPEC_NAME}")
        ]
    sets, problems = [], []
    for _, path in sorted(found):
        try:
            sets.append(EmbeddingSet(filesystem, path, read_spec(filesystem, path)))
        except LocalError as err:
            problems.append(SetProblem(path=path, reason=str(err)))
    return sets, problems


def find_set(
    root_url: str, dataset: str | None = None, fingerprint: str | None = None
) -> EmbeddingSet:
    """Find a set by dataset and the beginning of its fingerprint.

    Args:
        root_url: Folder or fsspec URL that holds a folder for each dataset.
        dataset: Name of the dataset; None looks at all of them.
        fingerprint: The fingerprint or its beginning; None if there is only one set.

    Raises:
        InvalidInputError: No set matches, or several do.
        LocalError: The matching set is damaged.
    """
    sets, problems = find_sets(root_url, dataset)
    wanted = fingerprint or ""
    fitting = [one for one in sets if one.spec.fingerprint.startswith(wanted)]
    if len(fitting) == 1:
        return fitting[0]
    of = f" of {dataset!r}" if dataset else ""
    if fitting:
        listed = ", ".join(f"{one.spec.fingerprint} ({one.spec.dataset})" for one in fitting)
        meant = (
            f"{fingerprint!r} fits several sets{of}" if wanted else f"there are several sets{of}"
        )
        raise InvalidInputError(f"{meant}; name one of: {listed}")
    for problem in problems:
        if problem.path.rsplit("/", 1)[-1].startswith(wanted):
            raise LocalError(problem.reason)
    known = ", ".join(f"{one.spec.fingerprint} ({one.spec.dataset})" for one in sets)
    named = f" whose fingerprint begins with {wanted!r}" if wanted else ""
    raise InvalidInputError(
        f"no embedding set{of}{named} below {masked(root_url)}; "
        f"there are: {known or 'none yet (`coinml embed` makes them)'}"
    )


def summarise(embedding_set: EmbeddingSet) -> SetSummary:
    """Summarise a set; broken parts are listed and not counted.

    Raises:
        LocalError: A part cannot be reached.
    """
    import pyarrow as pa

    sizes, tables, broken = embedding_set.read_keys([*ORDER, *_FACTS])
    numbers = {part: table.num_rows for part, table in tables.items()}
    table = pa.concat_tables(tables.values()) if tables else None
    rows = latest_rows(table) if table is not None else np.arange(0)
    part_of = np.repeat(np.arange(len(numbers)), list(numbers.values()))[rows]
    current = np.bincount(part_of, minlength=len(numbers))
    extents = None
    if table is not None:
        current_rows = table.take(rows)
        extents = current_rows.take(runs_of_spans(current_rows)[0])
    written = [int(part.split("-")[1].split(".")[0].split("_")[0]) for part in sizes]
    substituted = extents.column("frames_substituted").to_numpy() if extents else np.arange(0)
    return SetSummary(
        videos=len(extents.column("video_id").unique()) if extents else 0,
        extents=extents.num_rows if extents else 0,
        clips=len(rows),
        newest=datetime.fromtimestamp(max(written) / 1e9, UTC) if written else None,
        decoders=_counts(extents, "decoder"),
        dtypes=_counts(extents, "dtype"),
        frames_decoded=int(extents.column("frames_decoded").to_numpy().sum()) if extents else 0,
        frames_substituted=int(substituted.sum()),
        with_substitutes=int((substituted > 0).sum()),
        parts=tuple(
            PartSummary(part=part, size_bytes=sizes[part], rows=count, current=int(counted))
            for (part, count), counted in zip(numbers.items(), current, strict=True)
        ),
        broken=tuple(broken),
        size_bytes=sum(sizes.values()),
    )


def _counts(table: pa.Table | None, name: str) -> dict[str, int]:
    if table is None:
        return {}
    return dict(sorted(Counter(table.column(name).to_pylist()).items()))
