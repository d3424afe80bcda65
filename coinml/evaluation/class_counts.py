"""Number of videos of each class and split, classes without videos included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from coinml.data.records import SPLITS
from coinml.data.targets import FEW_VIDEOS


def class_counts(table: pd.DataFrame, official: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Count each class's videos by split: those that are embedded, and all.

    Args:
        table: With the columns `video_id`, `label` and `split`, one row per embedded video (or
            segment).
        official: Label and split of every video (or segment), collected or not.

    Returns:
        One row per class, sorted: `class, train, train_official, val, val_official, test,
        test_official` and `train_videos`, the number of different videos in train.
    """
    wanted = pd.DataFrame(list(official), columns=["label", "split"])
    counts = [pd.crosstab(rows["label"], rows["split"]) for rows in (table, wanted)]
    classes = sorted(set(wanted["label"]) | set(table["label"]))
    columns: dict[str, list[object]] = {"class": list(classes)}
    for split in SPLITS:
        for name, found in zip((split, f"{split}_official"), counts, strict=True):
            by_class = found[split].to_dict() if split in found else {}
            columns[name] = [int(by_class.get(label, 0)) for label in classes]
    trained = table[table["split"] == "train"].groupby("label")["video_id"].nunique().to_dict()
    columns["train_videos"] = [int(trained.get(label, 0)) for label in classes]
    return pd.DataFrame(columns)


def classes_without(counts: pd.DataFrame) -> Mapping[str, tuple[str, ...]]:
    """The classes without a video, by split; splits without such classes are left out.

    Args:
        counts: As `class_counts` returns it.
    """
    lacking = {split: tuple(counts["class"][counts[split] == 0]) for split in SPLITS}
    return {split: names for split, names in lacking.items() if names}


def scarce_classes(counts: pd.DataFrame, *, at_least: int = FEW_VIDEOS) -> tuple[str, ...]:
    """The classes with too few training videos, but with some.

    Args:
        counts: As `class_counts` returns it.
        at_least: Number of training videos that is enough.
    """
    few = (counts["train_videos"] > 0) & (counts["train_videos"] < at_least)
    return tuple(counts["class"][few])
