"""Corrections of labels: a file beside the annotations that says who changed what, and why.

The annotations stay as they were published. What was corrected is in the labels of the dataset, and
so in the digests of all that is trained on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from coinml.data.csv_rows import read_csv_rows
from coinml.data.names import listed, plain_name, shown
from coinml.data.records import Dataset
from coinml.errors import InvalidInputError
from coinml.runtime.escaping import plain_csv_text

CORRECTIONS = "corrections.csv"
COLUMNS = ("id", "column", "old", "new", "who", "why")
LABEL = "label"
"""The only column that may be corrected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correction:
    """One line of a file of corrections.

    Attributes:
        video_id: The video.
        old: Its label in the annotations.
        new: Its label from now on, a class of the dataset.
        who: Who decided it.
        why: Why.
        line: Its line in the file.
    """

    video_id: str
    old: str
    new: str
    who: str
    why: str
    line: int = 0


def corrections_beside(origin: Path) -> Path:
    """Where the corrections of a folder or of an annotation file are, if there are any."""
    return (origin if origin.is_dir() else origin.parent) / CORRECTIONS


def corrected(dataset: Dataset, path: Path, *, classes: Sequence[str] = ()) -> Dataset:
    """A dataset with the labels of its training and val videos corrected.

    The labels of test videos stay as they were published, since results on changed ones could be
    compared with no other: a note says which of them are flagged.

    Args:
        dataset: The dataset as read.
        path: Its file of corrections; without one, the dataset is returned as it is.
        classes: The classes that were read, where that are not all: corrections of videos that had
            another label are left out.

    Raises:
        InvalidInputError: A video, an old label or a new one does not fit the dataset, a video is
            corrected twice, or a cell is empty; the text names the line.
    """
    if not path.is_file():
        return dataset
    found = read_corrections(path)
    if classes:
        found = [one for one in found if one.old in classes]
    videos = {video.video_id: video for video in dataset.videos}
    domains = {video.label: video.domain for video in dataset.videos}
    changed, flagged = 0, []
    for one in found:
        where = f"{path}: line {one.line}"
        video = videos.get(one.video_id)
        if video is None:
            raise InvalidInputError(
                f"{where}, column id: {dataset.name} has no video {shown(one.video_id)}"
            )
        if video.label != one.old:
            raise InvalidInputError(
                f"{where}, column old: {shown(one.old)}, but {one.video_id!r} is labelled "
                f"{video.label!r} in the annotations; remove or renew this line"
            )
        if one.new not in domains:
            raise InvalidInputError(
                f"{where}, column new: {shown(one.new)} is no class of {dataset.name}; the classes "
                f"are {listed(dataset.classes)}"
            )
        if video.split == "test":
            flagged.append(f"{one.video_id!r} as {one.new!r}")
            continue
        changed += 1
        videos[one.video_id] = replace(video, label=one.new, domain=domains[one.new])
    notes = [f"{path.name}: labels corrected: {changed:,}"] if changed else []
    if flagged:
        notes.append(
            f"{path.name}: labels of test videos stay as published; flagged: {len(flagged):,} "
            f"({listed(flagged)})"
        )
    return replace(dataset, videos=tuple(videos.values()), notes=(*dataset.notes, *notes))


def read_corrections(path: Path) -> list[Correction]:
    """The lines of a file of corrections.

    Raises:
        InvalidInputError: As `corrected`, as far as the file alone says.
    """
    _, rows = read_csv_rows(path, known=COLUMNS, needed=COLUMNS)
    found: dict[str, Correction] = {}
    for line, row in rows:
        where = f"{path}: line {line}"
        # As `coinml audit` writes ids that begin with a minus, which most spreadsheets compute.
        cells = {name: plain_csv_text(cell) for name, cell in row.items()}
        for name in COLUMNS:
            if not cells[name].strip():
                raise InvalidInputError(f"{where}, column {name}: empty")
        if cells["column"].strip() != LABEL:
            raise InvalidInputError(
                f"{where}, column column: {shown(cells['column'])}; only {LABEL!r} is corrected"
            )
        video_id = cells["id"].strip()
        if video_id in found:
            raise InvalidInputError(
                f"{where}, column id: {shown(video_id)} is corrected in line "
                f"{found[video_id].line}, too; a video has one line"
            )
        old, new = (plain_name(cells[name], f"{where}, column {name}") for name in ("old", "new"))
        if old == new:
            raise InvalidInputError(
                f"{where}, column new: {shown(new)} is the old label, too; name another class"
            )
        found[video_id] = Correction(
            video_id=video_id,
            old=old,
            new=new,
            who=cells["who"].strip(),
            why=cells["why"].strip(),
            line=line,
        )
    return list(found.values())
