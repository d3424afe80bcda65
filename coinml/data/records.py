"""The frozen records that stages pass to each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Subset = Literal["training", "testing"]
"""The published subset of a video."""

Split = Literal["train", "val", "test"]
"""The split that coinml uses: `val` is taken from the training subset."""

SPLITS: tuple[Split, ...] = ("train", "val", "test")

Target = Literal["task", "domain", "step"]
"""What a head classifies."""

Extent = Literal["video", "annotated", "segments"]
"""Which part of a video is embedded: all of it, from the first to the last annotated second, or
each annotated segment on its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One annotated segment of a video.

    Attributes:
        step_id: Id in the taxonomy, as published ("587"); identifies a step class, since 25 of
            COIN's labels have two ids.
        label: Name of the step.
        start_s: Start in seconds from the start of the video.
        end_s: End in seconds, greater than `start_s`.
    """

    step_id: str
    label: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """One entry of a dataset's annotations.

    Attributes:
        video_id: Unique in its dataset: 11 characters for YouTube, the path below the folder
            without extension for class folders.
        label: The task class.
        subset: The published subset.
        split: The split that coinml uses.
        duration_s: Length in seconds, if annotated.
        start_s: Start of the annotated extent in seconds, if annotated.
        end_s: End of the annotated extent in seconds, if annotated.
        domain: The domain of the class in the taxonomy, if known.
        steps: The annotated segments, ordered by start.
        path: Path of the file, for datasets that are folders.
        group: What it shares with other videos, which are then not independent of it: a person,
            a recording. None for a video of its own.
    """

    video_id: str
    label: str
    subset: Subset
    split: Split
    duration_s: float | None = None
    start_s: float | None = None
    end_s: float | None = None
    domain: str | None = None
    steps: tuple[Step, ...] = ()
    path: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named list of videos.

    Attributes:
        name: Identifies the ledger rows, the embedding sets, the experiment and the model.
        videos: In the order of the annotations; ids are unique.
        origin: File or folder of the annotations, for messages.
        notes: What was skipped or spelled otherwise when it was read, a sentence each.
        official_split: Whether its test side was published with it; False where coinml cut it.
    """

    name: str
    videos: tuple[Video, ...]
    origin: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    official_split: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return tuple(sorted({video.label for video in self.videos}))
