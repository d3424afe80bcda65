"""Which folder or annotation file a dataset is read from.

Two folders of one name are two datasets, and so are two annotation files: under one name, the files
of one would be trained with the labels of the other. What was moved is recognised by its content.
"""

from __future__ import annotations

import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.data.records import Dataset, Video
from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from coinml.ledger.records import LedgerRow

FOLDER_PREFIX = "folder:"
_HASHED = 3
"""Files that are compared by their content; all others by their size."""


def origin_of(dataset: Dataset) -> str:
    """Where a dataset is read from, as `--dataset` takes it; "" for one made in Python."""
    if not dataset.origin:
        return ""
    path = str(Path(dataset.origin).expanduser().resolve())
    is_folder = any(video.path for video in dataset.videos) and not path.lower().endswith(".csv")
    return FOLDER_PREFIX + path if is_folder else path


def require_same(dataset: Dataset, known: str | None, rows: Sequence[LedgerRow]) -> None:
    """Require that a dataset is the one that the ledger knows by its name.

    It is if it is read from the same place, or if one of the two has all videos of the other and
    those that both have are the same: their files' sizes and some of their contents for folders,
    their classes and subsets for annotation files.

    Args:
        dataset: The dataset as read.
        known: Where the ledger's dataset was read from, if that was recorded.
        rows: The ledger's rows of the name.

    Raises:
        InvalidInputError: They are two; names both places and the ways on.
    """
    origin = origin_of(dataset)
    known = known or _inferred(rows)
    if not origin or not known or not rows or known == origin:
        return
    if known.startswith(FOLDER_PREFIX) == origin.startswith(FOLDER_PREFIX) and _agrees(
        dataset, {row.video_id: row for row in rows}
    ):
        return
    raise InvalidInputError(
        f"the name {dataset.name!r} belongs to another dataset: the ledger knows {known}, and "
        f"{origin} has other videos. Give this one a name of its own with --name; or, if it is the "
        f"same dataset in a new place or with new content, say so once: "
        f"coinml move-dataset --dataset {shlex.quote(origin)} --name {dataset.name}"
    )


def _inferred(rows: Sequence[LedgerRow]) -> str | None:
    """The folder of a ledger that did not record it: where its files lie, less their ids."""
    places = Counter(
        str(Path(row.path).with_suffix("")).removesuffix(f"/{row.video_id}")
        for row in rows
        if row.origin == "in_place"
        and row.path
        and str(Path(row.path).with_suffix("")).endswith(f"/{row.video_id}")
    )
    return FOLDER_PREFIX + places.most_common(1)[0][0] if places else None


def _agrees(dataset: Dataset, rows: Mapping[str, LedgerRow]) -> bool:
    videos = {video.video_id: video for video in dataset.videos}
    both = videos.keys() & rows.keys()
    if len(both) < min(len(videos), len(rows)):
        return False
    if all(video.path is None for video in dataset.videos):
        return all(
            (videos[one].label, videos[one].subset) == (rows[one].label, rows[one].subset)
            for one in both
        )
    return _same_files([(videos[one], rows[one]) for one in sorted(both)])


def _same_files(pairs: Sequence[tuple[Video, LedgerRow]]) -> bool:
    """Whether the files that were verified are the same now, elsewhere."""
    verified = [(Path(str(video.path)), row) for video, row in pairs if row.sha256]
    smallest = sorted(verified, key=lambda pair: pair[1].size_bytes or 0)[:_HASHED]
    try:
        return bool(smallest) and (
            all(path.stat().st_size == row.size_bytes for path, row in verified)
            and all(_sha256(path) == row.sha256 for path, row in smallest)
        )
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
