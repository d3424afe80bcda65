"""Accuracy of scores whose true classes became known later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from coinml.data.csv_rows import read_csv_rows
from coinml.data.names import plain_name, shown
from coinml.errors import InvalidInputError
from coinml.evaluation.intervals import Estimate, clustered_proportion, proportion
from coinml.monitoring.sources import Source

COLUMNS = ("path", "label", "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledAccuracy:
    """Accuracy of scores on the files with a label.

    Attributes:
        version: The version that answered; None: all of them.
        videos: Number of files with an answer and a label; files with one content count once.
        accuracy: The share of right answers.
    """

    version: int | None
    videos: int
    accuracy: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        one = self.accuracy
        return {
            "version": self.version,
            "videos": self.videos,
            "accuracy": one.value,
            "accuracy_low": one.low,
            "accuracy_high": one.high,
            "caveat": one.caveat,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What labels say about scores.

    Attributes:
        accuracies: Of all answers, and of each version's if there are several.
        unscored: Number of labelled files without an answer.
    """

    accuracies: tuple[LabelledAccuracy, ...]
    unscored: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LateLabels:
    """True classes of files.

    Attributes:
        labels: The class of each path below the source's folder.
        groups: The group of those paths that have one.
    """

    labels: Mapping[str, str]
    groups: Mapping[str, str]


def measure_labelled(late: LateLabels, source: Source, scores: pd.DataFrame) -> Labelled:
    """Accuracy on the files that have a label.

    Args:
        late: The labels, as `read_labels` reads them.
        source: Where the files were scored.
        scores: `source, path, sha256, label, version` of the scored files, in order.
    """
    labels, groups = late.labels, late.groups
    answered = scores[(scores["source"] == source.name) & scores["label"].notna()]
    # The latest answer for a path counts: what was there before was another file.
    latest = answered.drop_duplicates("path", keep="last").drop_duplicates("sha256")
    known = latest[latest["path"].isin(labels.keys())].reset_index(drop=True)
    right = np.array(
        [label == labels[path] for path, label in zip(known["path"], known["label"], strict=True)],
        dtype=bool,
    )
    members = [groups.get(path, path) for path in known["path"]]
    accuracies = []
    versions = sorted({int(one) for one in known["version"]})
    for version in (None, *versions) if len(versions) != 1 else versions:
        rows = np.flatnonzero((known["version"] == version) if version else np.ones(len(known)))
        if len(rows):
            accuracies.append(_accuracy(version, right[rows], [members[row] for row in rows]))
    unscored = len(labels.keys() - set(answered["path"]))
    return Labelled(accuracies=tuple(accuracies), unscored=unscored)


def _accuracy(version: int | None, right: Any, members: Sequence[str]) -> LabelledAccuracy:
    grouped = len(set(members)) < len(members)
    return LabelledAccuracy(
        version=version,
        videos=len(right),
        accuracy=clustered_proportion(right, members)
        if grouped
        else proportion(int(right.sum()), len(right)),
    )


def read_labels(table: Path, source: Source) -> LateLabels:
    """Read labels of files from a CSV file.

    Args:
        table: `path,label` and perhaps `group`: rows of a group (a person, a camera) are not
            independent. A path is below the source's folder, or begins with it.
        source: Where the files are scored.

    Raises:
        InvalidInputError: The file is not of this form, or labels a file twice and differently.
    """
    header, rows = read_csv_rows(table, known=COLUMNS, needed=("path", "label"))
    labels: dict[str, str] = {}
    groups: dict[str, str] = {}
    for line, cells in rows:
        path = source.path_of(cells["path"].strip())
        label = plain_name(cells["label"], f"{table}: line {line}, column label")
        if not path:
            raise InvalidInputError(f"{table}: line {line}, column path: empty")
        if labels.setdefault(path, label) != label:
            raise InvalidInputError(
                f"{table}: line {line}: {shown(path)} has the label {labels[path]!r} in an earlier "
                f"line, and {label!r} here"
            )
        if group := cells.get("group", "").strip():
            groups[path] = group
    if not labels:
        raise InvalidInputError(f"{table}: no rows below the header {','.join(header)}")
    return LateLabels(labels=labels, groups=groups)
