"""The recorded split of a folder, so that no video changes its side while the folder grows.

A split by quotas depends on all videos of a class. Without a record, one more file would move
others across a border, and a test video that a head has been measured on could become a training
video.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from coinml.data.names import shown
from coinml.data.records import SPLITS, Dataset, Split
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.atomic_files import write_whole


@dataclass(slots=True)
class RecordedSplit:
    """The split of each group (or video without one) of a folder; `update` adds new ones."""

    known: dict[str, Split]

    def update(self, dataset: Dataset) -> None:
        """Record the split of a dataset's videos; what is recorded and not in it stays recorded."""
        self.known |= {video.group or video.video_id: video.split for video in dataset.videos}


@contextmanager
def recorded_split(
    folder: Path, dataset: str, *, seed: int, group: str | None
) -> Iterator[RecordedSplit]:
    """The recorded split of a dataset, which no other process reads or writes meanwhile.

    Each seed and each expression for groups has a record of its own: another cut is another split.

    Args:
        folder: Folder of the records.
        dataset: The dataset's name.
        seed: Seed of the split.
        group: The expression for groups.

    Raises:
        InvalidInputError: The record is damaged.
        LocalError: It cannot be read or written.
    """
    digest = hashlib.sha256(json.dumps([seed, group]).encode()).hexdigest()[:8]
    file = folder / f"{dataset}-{digest}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            before = _read(file)
            record = RecordedSplit(dict(before))
            yield record
            if record.known != before:
                about = {"dataset": dataset, "seed": seed, "group": group}
                splits = dict(sorted(record.known.items()))
                write_whole(file, json.dumps({**about, "splits": splits}, indent=1))
    except OSError as err:
        raise LocalError(f"{file}: the split cannot be recorded: {err.strerror or err}") from err


def _read(file: Path) -> dict[str, Split]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as err:
        raise _damaged(file, f"byte {err.start:,} is not UTF-8") from err
    except json.JSONDecodeError as err:
        raise _damaged(
            file, f"not JSON at line {err.lineno}, character {err.colno}: {err.msg}"
        ) from err
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, dict):
        raise _damaged(file, f"field 'splits': {shown(splits)} is no object with a split by video")
    for one, split in splits.items():
        if split not in SPLITS:
            allowed = ", ".join(SPLITS)
            raise _damaged(
                file, f"field 'splits', {shown(one)}: {shown(split)} is not one of {allowed}"
            )
    return splits


def _damaged(file: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"{file}: not the record of a split ({why}); restore it, or delete it to have the folder "
        "cut anew, which may move test videos to train"
    )
