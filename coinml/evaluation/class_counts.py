"""How many videos each class has, so that one without is never lost from sight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from coinml.data.records import SPLITS
from coinml.data.targets import FEW_VIDEOS


def class_counts(table: pd.DataFrame, official: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Count what each class has on each side, and what it would have were nothing lost.

    Args:
        table: With the columns `video_id`, `label` and `split`, a row a video (or segment) that
            is here.
        official: Label and split of every one there should be.

    Returns:
        One row a class, sorted: `class, train, train_official, val, val_official, test,
        test_official` and `train_videos`, the different videos among those of training.
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
    """The classes without a video, by split; splits in which none lacks are left out.

    Args:
        counts: As `class_counts` makes it.
    """
    lacking = {split: tuple(counts["class"][counts[split] == 0]) for split in SPLITS}
    return {split: names for split, names in lacking.items() if names}


def scarce_classes(counts: pd.DataFrame, *, at_least: int = FEW_VIDEOS) -> tuple[str, ...]:
    """The classes with some training videos, but so few that little can be learnt from them.

    Args:
        counts: As `class_counts` makes it.
        at_least: Number of training videos that is enough.
    """
    few = (counts["train_videos"] > 0) & (counts["train_videos"] < at_least)
    return tuple(counts["class"][few])
