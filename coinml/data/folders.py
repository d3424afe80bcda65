"""Datasets that are folders of video files, one folder per class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from coinml.data.records import Dataset, Video
from coinml.data.splits import folder_splits
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.errors import InvalidInputError


def read_folder(
    folder: Path,
    *,
    name: str,
    classes: Sequence[str] = (),
    group: str | None = None,
    seed: int = 0,
) -> Dataset:
    r"""Read a dataset from class folders; an id is the path below `folder` without extension.

    Class folders whose names start with `_` or `.` are skipped, and so are files without a video
    extension. The split is seeded, stratified and 70/15/15 (`splits.folder_splits`).

    Args:
        folder: The folder of class folders.
        name: The dataset's name.
        classes: Keep only these classes; empty keeps all.
        group: Regular expression searched in the path below the class folder, such as
            ``^subject\d+``. Files with the same match (of its first group, if it has one) stay
            in one split.
        seed: Seed of the split.

    Raises:
        InvalidInputError: If there is no such folder or class, a class has too few files, two
            files have one id, or the expression does not compile.
    """
    kept = _class_folders(folder, classes)
    pattern = _compile(group)
    files = _video_files(folder, kept)
    labels: dict[str, str] = {}
    groups: dict[str, str] = {}
    for video_id, path in files.items():
        labels[video_id] = video_id.split("/", 1)[0]
        below = path.relative_to(folder / labels[video_id]).as_posix()
        match = pattern.search(below) if pattern else None
        groups[video_id] = match.group(match.re.groups and 1) if match else video_id
    try:
        splits = folder_splits(labels, groups, seed=seed)
    except InvalidInputError as err:
        raise InvalidInputError(f"{folder}: {err}") from None
    return Dataset(
        name=name,
        origin=str(folder),
        videos=tuple(
            Video(
                video_id=video_id,
                label=labels[video_id],
                subset="testing" if splits[video_id] == "test" else "training",
                split=splits[video_id],
                path=str(path.resolve()),
            )
            for video_id, path in files.items()
        ),
    )


def _class_folders(folder: Path, classes: Sequence[str]) -> Sequence[str]:
    """The names of the class folders to read: `classes`, or all of them."""
    if not folder.is_dir():
        raise InvalidInputError(f"{folder}: no such folder; expected one folder per class in it")
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] not in "_.")
    unknown = sorted(set(classes) - set(found))
    if unknown or not found:
        missing = f"no class {', '.join(unknown)}" if unknown else "no class folders"
        raise InvalidInputError(
            f"{folder}: {missing}; the class folders are {', '.join(found) or 'none'}"
        )
    return classes or found


def _video_files(folder: Path, classes: Sequence[str]) -> dict[str, Path]:
    """The video files of class folders by id."""
    files: dict[str, Path] = {}
    empty = []
    for label in classes:
        before = len(files)
        for path in sorted((folder / label).rglob("*")):
            if path.suffix.lower() not in VIDEO_ENDINGS or not path.is_file():
                continue
            video_id = path.relative_to(folder).with_suffix("").as_posix()
            if video_id in files:
                raise InvalidInputError(
                    f"{folder}: {files[video_id].name} and {path.name} have the same id "
                    f"{video_id!r}"
                )
            files[video_id] = path
        if len(files) == before:
            empty.append(label)
    if empty:
        raise InvalidInputError(
            f"{folder}: no videos in {', '.join(sorted(empty))} "
            f"(endings {' '.join(sorted(VIDEO_ENDINGS))}); leave the class out "
            "with --classes, or start its name with '_'"
        )
    return files


def _compile(group: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group) if group is not None else None
    except re.error as err:
        raise InvalidInputError(f"group {group!r}: not a regular expression: {err}") from err
