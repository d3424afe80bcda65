"""What heads are trained on: a dataset, the embeddings of its videos, and how the two are split."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pandas as pd

from coinml.data.records import Dataset, Split, Target
from coinml.data.targets import FEW_VIDEOS, Example, examples, official_sizes
from coinml.embedding_sets.spec import SetSpec
from coinml.embedding_sets.table import Samples, build_table, clips_by_video, split_samples
from coinml.evaluation.class_counts import class_counts, scarce_classes
from coinml.evaluation.leaks import drop_leaks as without_leaks
from coinml.evaluation.leaks import find_contradictions, find_leaks
from coinml.ledger import DOWNLOADED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from coinml.embedding_sets import EmbeddingSet
    from coinml.ledger import Ledger

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Embeddings with labels and splits, and where they came from.

    Attributes:
        dataset: All videos, collected or not: coverage is measured on them, and a class whose
            videos are all lost remains a class.
        table: As `build_table` makes it for the target.
        spec: The embedding set that the table came from.
        target: Whose classes the labels are.
        clips: The clips of each row of the table by the row's id, float16 of shape (K, D); None
            where no head takes clips.
        sha256s: Hash of each video's file, by which a video under two ids is found.
        ledger_digest: The ledger's state when the table was made, if known.
    """

    dataset: Dataset
    table: pd.DataFrame
    spec: SetSpec
    target: Target = "task"
    clips: Mapping[str, npt.NDArray[np.float16]] | None = None
    sha256s: Mapping[str, str] = field(default_factory=dict)
    ledger_digest: str = ""

    @cached_property
    def examples(self) -> list[Example]:
        """Every video (or segment) of the dataset, collected or not."""
        extent: Any = self.spec.extent
        return examples(self.dataset.videos, target=self.target, extent=extent)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, sorted."""
        return tuple(sorted({example.label for example in self.examples}))

    @property
    def official_sizes(self) -> Mapping[Split, int]:
        """Number of videos (or segments) of each split, collected or not."""
        return official_sizes(self.examples)


def load_training_data(
    dataset: Dataset,
    embedding_set: EmbeddingSet,
    ledger: Ledger,
    *,
    target: Target = "task",
    with_clips: bool = False,
) -> TrainingData:
    """Read what a set has of the present files of a dataset.

    Args:
        dataset: Says which videos, with which classes and splits.
        embedding_set: Where the embeddings are read.
        ledger: Says which files are present; what was embedded from other files is left out.
        target: Whose classes.
        with_clips: Whether to read the embeddings of single clips too.

    Raises:
        InvalidInputError: Nothing of the dataset is embedded, or the annotations lack what the
            target needs.
    """
    rows = ledger.rows_of(dataset, state=DOWNLOADED)
    return read_training_data(
        dataset,
        embedding_set,
        {row.video_id: row.sha256 for row in rows if row.sha256},
        target=target,
        with_clips=with_clips,
        ledger_digest=ledger.digest(dataset.name),
    )


def read_training_data(
    dataset: Dataset,
    embedding_set: EmbeddingSet,
    sha256s: Mapping[str, str],
    *,
    target: Target = "task",
    with_clips: bool = False,
    ledger_digest: str = "",
) -> TrainingData:
    """Like `load_training_data`, for files that are named by their hashes.

    Args:
        dataset: Says which videos, with which classes and splits.
        embedding_set: Where the embeddings are read.
        sha256s: Hash of each file by its video's id; what was embedded from other files is left
            out.
        target: Whose classes.
        with_clips: Whether to read the embeddings of single clips too.
        ledger_digest: The ledger's state, if known.

    Raises:
        InvalidInputError: As `load_training_data`.
    """
    extent: Any = embedding_set.spec.extent
    embedded = embedding_set.videos(sha256s)
    clips = None
    if with_clips:
        wanted = examples(dataset.videos, target=target, extent=extent)
        clips = clips_by_video(embedding_set.clips(), sha256s, wanted=wanted)
    return TrainingData(
        dataset=dataset,
        table=build_table(dataset.videos, embedded, target=target, extent=extent),
        spec=embedding_set.spec,
        target=target,
        clips=clips,
        sha256s=sha256s,
        ledger_digest=ledger_digest,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitData:
    """A table cut into its splits.

    Attributes:
        table: The rows that are used.
        samples: The same rows by split, as heads take them.
        leaks: Pairs of videos in different splits, as `find_leaks` returns them.
        leaks_dropped: Number of videos that were dropped for that.
        class_counts: Videos of each class and split, as `class_counts` returns them.
        contradictions: Equal files with different labels, as `find_contradictions` returns them.
    """

    table: pd.DataFrame
    samples: Mapping[Split, Samples]
    leaks: pd.DataFrame
    leaks_dropped: int
    class_counts: pd.DataFrame
    contradictions: pd.DataFrame


def split_data(data: TrainingData, *, drop_leaks: bool) -> SplitData:
    """Cut training data into train, val and test; log which classes have few training videos.

    Args:
        data: What is cut.
        drop_leaks: Leave out training videos that are also in val or test, and val videos that are
            also in test.

    Raises:
        InvalidInputError: A split is empty, or training has fewer than two classes.
    """
    leaks = find_leaks(data.table, data.sha256s)
    table = without_leaks(data.table, leaks) if drop_leaks else data.table
    split = SplitData(
        table=table,
        samples=split_samples(table, data.classes, clips=data.clips),
        leaks=leaks,
        leaks_dropped=leaks["video_id"].nunique() if drop_leaks else 0,
        class_counts=class_counts(table, [(one.label, one.split) for one in data.examples]),
        contradictions=find_contradictions(data.table, data.sha256s),
    )
    _warn_of_scarce_classes(split)
    return split


def _warn_of_scarce_classes(split: SplitData) -> None:
    scarce = scarce_classes(split.class_counts)
    if scarce:
        logger.warning(
            "fewer than %d training videos of %d of %d classes: %s%s",
            FEW_VIDEOS,
            len(scarce),
            len(split.class_counts),
            ", ".join(scarce[:10]),
            " … (tables/class_counts.csv of the run)" if len(scarce) > 10 else "",
        )
