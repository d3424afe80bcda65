"""Datasets that are a CSV file: a row for each video file, with its label."""

from __future__ import annotations

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coinml.data.csv_rows import read_csv_rows
from coinml.data.names import listed, plain_name, require_text, shown, spelling_notes
from coinml.data.records import SPLITS, Dataset, Split, Video
from coinml.data.splits import folder_splits, official_split
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.errors import InvalidInputError

COLUMNS = ("path", "label", "split", "group")
_SEPARATORS = ("|", ";")
"""Never part of a label here, since they are how several labels are written into one cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    line: int
    video_id: str
    named: str
    path: Path
    label: str
    found_label: str
    split: str
    group: str


def read_label_table(
    path: Path, *, name: str, seed: int = 0, known: Mapping[str, Split] | None = None
) -> Dataset:
    """Read a dataset from a CSV file with the columns `path, label` and perhaps `split, group`.

    Paths are relative to the file's folder, and a video's id is its path without the ending.
    Without the column `split`, the split is that of class folders (`splits.folder_splits`), with
    the videos of a group on one side. With it, and without a video in `val`, val is cut from train
    by hash.

    Args:
        path: The CSV file, in UTF-8.
        name: The dataset's name.
        seed: Seed of the split.
        known: Split of each group (or video without one) from an earlier reading, which it keeps
            where the file has no column `split`.

    Raises:
        InvalidInputError: A column is missing or unknown, a file is absent, a file or an id occurs
            twice, a label is empty or several, or the split is impossible; the text names the line.
    """
    header, records = read_csv_rows(path, known=COLUMNS, needed=("path", "label"))
    rows = [_row(path, line, cells) for line, cells in records]
    if not rows:
        raise InvalidInputError(f"{path}: no rows below the header {','.join(header)}")
    _check_labels(path, rows)
    _check_files(path, rows)
    splits = (
        _given_splits(path, rows, seed=seed)
        if "split" in header
        else _new_splits(path, rows, seed=seed, known=known)
    )
    return Dataset(
        name=name,
        origin=str(path),
        videos=tuple(
            Video(
                video_id=row.video_id,
                label=row.label,
                subset="testing" if splits[row.video_id] == "test" else "training",
                split=splits[row.video_id],
                path=str(row.path),
                group=row.group or None,
            )
            for row in rows
        ),
        notes=spelling_notes((row.found_label, row.label) for row in rows),
        official_split="split" in header,
    )


def _row(path: Path, line: int, cells: Mapping[str, str]) -> _Row:
    where = f"{path}: line {line}"
    named = cells["path"].strip()
    if not named:
        raise InvalidInputError(f"{where}, column path: empty")
    require_text(named, f"{where}, column path")
    base = path.parent.resolve()
    file = Path(os.path.normpath(base / Path(named).expanduser()))
    if file.suffix.lower() not in VIDEO_ENDINGS:
        raise InvalidInputError(
            f"{where}, column path: {shown(named)} is no video file ({' '.join(VIDEO_ENDINGS)})"
        )
    below = file.relative_to(base) if file.is_relative_to(base) else file.relative_to(file.anchor)
    label = cells["label"]
    if not label.strip():
        raise InvalidInputError(f"{where}, column label: empty")
    split = cells.get("split", "").strip()
    if "split" in cells and split not in SPLITS:
        raise InvalidInputError(
            f"{where}, column split: {shown(split)} is not one of {', '.join(SPLITS)}"
        )
    return _Row(
        line=line,
        video_id=unicodedata.normalize("NFC", below.with_suffix("").as_posix()),
        named=named,
        path=file,
        label=plain_name(label, f"{where}, column label"),
        found_label=label,
        split=split,
        group=unicodedata.normalize("NFC", cells.get("group", "").strip()),
    )


def _check_labels(path: Path, rows: Sequence[_Row]) -> None:
    """Refuse several labels in a cell, and one file in several rows with different labels."""
    labels = {row.label for row in rows}
    several = "one video has one label here: multi-label datasets are not supported"
    for row in rows:
        parts = [part.strip() for part in row.label.split(",")]
        if any(one in row.label for one in _SEPARATORS) or (
            len(parts) > 1 and all(part in labels for part in parts)
        ):
            raise InvalidInputError(
                f"{path}: line {row.line}, column label: {shown(row.label)} looks like several "
                f"labels; {several}"
            )
    for first, second in _twice((row.path, row) for row in rows):
        what = (
            f"line {second.line}, column path: {shown(second.named)} is in line {first.line}, too"
        )
        if first.label != second.label:
            what += f", as {first.label!r} and {second.label!r}; {several}"
        raise InvalidInputError(f"{path}: {what}")


def _check_files(path: Path, rows: Sequence[_Row]) -> None:
    for first, second in _twice((row.video_id, row) for row in rows):
        raise InvalidInputError(
            f"{path}: lines {first.line} and {second.line}, column path: {shown(first.named)} and "
            f"{shown(second.named)} have the same id {first.video_id!r}, the path without its "
            "ending; rename one, or remove its line"
        )
    absent = [
        f"line {row.line}, column path: {shown(row.named)} ({row.path})"
        for row in rows
        if not row.path.is_file()
    ]
    if absent:
        raise InvalidInputError(
            f"{path}: {listed(absent)}: no such file; paths are relative to {path.parent.resolve()}"
        )


def _twice(keyed: Iterable[tuple[object, _Row]]) -> Iterable[tuple[_Row, _Row]]:
    """Pairs of rows with the same key: the first one and a later one."""
    seen: dict[object, _Row] = {}
    for key, row in keyed:
        if key in seen:
            yield seen[key], row
        seen.setdefault(key, row)


def _new_splits(
    path: Path, rows: Sequence[_Row], *, seed: int, known: Mapping[str, Split] | None
) -> dict[str, Split]:
    labels = {row.video_id: row.label for row in rows}
    groups = {row.video_id: row.group or row.video_id for row in rows}
    try:
        return folder_splits(labels, groups, seed=seed, known=known)
    except InvalidInputError as err:
        raise InvalidInputError(f"{path}: {err}") from None


def _given_splits(path: Path, rows: Sequence[_Row], *, seed: int) -> dict[str, Split]:
    groups = {row.video_id: row.group or row.video_id for row in rows}
    splits: dict[str, Split] = {row.video_id: row.split for row in rows}  # type: ignore[misc]
    if "val" not in splits.values():
        splits = {
            one: official_split(groups[one], "testing" if side == "test" else "training", seed=seed)
            for one, side in splits.items()
        }
    sides: dict[str, dict[Split, int]] = defaultdict(dict)
    for row in rows:
        sides[groups[row.video_id]].setdefault(splits[row.video_id], row.line)
    for group, lines in sides.items():
        if len(lines) > 1:
            where = ", ".join(f"{side!r} in line {line}" for side, line in lines.items())
            raise InvalidInputError(
                f"{path}: column split: group {group!r} is on several sides: {where}; all rows of "
                "a group have one split"
            )
    return splits
