"""The jobs of an embedding run: each a video, or an extent (part) of one, to embed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coinml.data.records import Dataset, Extent, Video
from coinml.data.targets import spans
from coinml.embedding_sets import Done
from coinml.errors import InvalidInputError

if TYPE_CHECKING:
    from coinml.ledger import LedgerRow


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedJob:
    """One video, or an extent of it, to embed.

    Attributes:
        video_id: Its id in the dataset.
        path: The video file.
        file_sha256: Hash of the file; a video whose file has changed is embedded again.
        start_s: Start of the extent in seconds from the first frame; None for the whole video.
        end_s: End of the extent, likewise.
    """

    video_id: str
    path: str
    file_sha256: str
    start_s: float | None = None
    end_s: float | None = None


def plan_jobs(videos: Sequence[Video], rows: Iterable[LedgerRow], extent: Extent) -> list[EmbedJob]:
    """One job per extent of each video that has a file; jobs of a video are adjacent.

    Args:
        videos: The videos, with their annotations.
        rows: The ledger's rows; those without a file are ignored.
        extent: The set's kind of extent.
    """
    files = {row.video_id: (row.path, row.sha256) for row in rows if row.path and row.sha256}
    return [
        EmbedJob(
            video_id=video.video_id,
            path=str(files[video.video_id][0]),
            file_sha256=str(files[video.video_id][1]),
            start_s=start_s,
            end_s=end_s,
        )
        for video in sorted(videos, key=lambda video: video.video_id)
        if video.video_id in files
        for start_s, end_s in spans(video, extent)
    ]


def require_jobs(dataset: Dataset, jobs: Sequence[EmbedJob], extent: Extent) -> None:
    """Require that there is something to embed, before a set is made that stays empty.

    Raises:
        InvalidInputError: No video of the dataset is collected, or none that is has the extent.
    """
    if not jobs:
        which = "" if extent == "video" else f" with the extent {extent!r}"
        raise InvalidInputError(
            f"{dataset.name}: none of its {len(dataset.videos):,} videos{which} is collected: "
            "nothing is embedded, and no set is made; collect first (`coinml status` says more)"
        )


def key_of(job: EmbedJob) -> Done:
    """The job's key in `EmbeddingSet.done`."""
    return (job.video_id, job.start_s, job.end_s, job.file_sha256)


def count_done(jobs: Iterable[EmbedJob], done: set[Done]) -> Mapping[str, int]:
    """Number of jobs that are in a set, by video id; videos without any are left out."""
    counts: dict[str, int] = {}
    for job in jobs:
        if key_of(job) in done:
            counts[job.video_id] = counts.get(job.video_id, 0) + 1
    return counts
