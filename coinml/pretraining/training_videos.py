"""The videos that pre-training may see: collected, and of the training split alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coinml.data.records import Dataset
from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from coinml.ledger import LedgerRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingVideo:
    """A collected video of the training split.

    Attributes:
        video_id: Its id in the dataset.
        path: Its file.
        sha256: Hash of the file, in hex.
    """

    video_id: str
    path: str
    sha256: str


def training_videos(dataset: Dataset, rows: Iterable[LedgerRow]) -> list[TrainingVideo]:
    """The collected videos of the training split, ordered by id.

    A video is one of them if the dataset and the ledger both say so, and no video of another split
    has the same file.

    Args:
        dataset: The videos with their splits.
        rows: The ledger's rows of the dataset.

    Raises:
        InvalidInputError: There is none.
    """
    splits = {video.video_id: video.split for video in dataset.videos}
    rows = list(rows)
    held_out = {
        row.sha256
        for row in rows
        if row.sha256 and (row.split != "train" or splits.get(row.video_id, "train") != "train")
    }
    found = [
        TrainingVideo(video_id=row.video_id, path=row.path, sha256=row.sha256)
        for row in rows
        if row.path
        and row.sha256
        and splits.get(row.video_id) == row.split == "train"
        and row.sha256 not in held_out
    ]
    if not found:
        raise InvalidInputError(
            f"{dataset.name}: none of its training videos is collected; collect first "
            "(`coinml status` says more)"
        )
    return sorted(found, key=lambda video: video.video_id)
