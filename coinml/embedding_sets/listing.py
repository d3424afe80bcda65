"""Which sets there are, and what is in each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from coinml.embedding_sets.current import ORDER, latest_rows, runs_of_spans
from coinml.embedding_sets.places import as_local_error, filesystem_of, folders_in, masked
from coinml.embedding_sets.sets import SPEC_NAME, EmbeddingSet, PartProblem, read_spec
from coinml.errors import InvalidInputError, LocalError

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

_FACTS = ("decoder", "frames_decoded", "frames_substituted", "dtype")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetProblem:
    """A set that cannot be opened.

    Attributes:
        path: Its folder.
        reason: Why, for people.
    """

    path: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSummary:
    """One part.

    Attributes:
        part: Its name.
        size_bytes: Its size.
        rows: Clips in it.
        current: Those of them that count: no later part has the same.
    """

    part: str
    size_bytes: int
    rows: int
    current: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSummary:
    """What is in a set.

    Attributes:
        videos: Number of videos.
        extents: Number of videos and extents of videos.
        clips: Number of clips of these.
        newest: When the newest part was written; None where there is none.
        decoders: Videos (or extents) by the decoder that gave the pixels.
        dtypes: The same by what the encoder computed in.
        frames_decoded: Number of frames that were read.
        frames_substituted: Number of frames whose neighbour stands in.
        with_substitutes: Videos (or extents) with such frames.
        parts: Those that can be read.
        broken: Those that cannot.
        size_bytes: Of all.
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
    """The sets below a root, the latest last; one that cannot be opened is logged and left out.

    Args:
        root_url: Folder or fsspec URL that holds a folder for each dataset.
        dataset: Only this one's.
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
    """The set that is meant.

    Args:
        root_url: Folder or fsspec URL that holds a folder for each dataset.
        dataset: Its dataset; may be left open where the rest says enough.
        fingerprint: Its fingerprint, or how that begins; the only set needs none.

    Raises:
        InvalidInputError: None fits, or several do.
        LocalError: The one that fits is damaged.
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
    """What is in a set; broken parts are named and not counted.

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
