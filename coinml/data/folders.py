"""Datasets that are folders of video files, one folder per class."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from coinml.data.names import listed, plain_name, require_text, spelling_notes
from coinml.data.records import Dataset, Split, Video
from coinml.data.splits import folder_splits
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.data.video_files import FoundVideos, class_folders, find_videos
from coinml.errors import InvalidInputError


def read_folder(
    folder: Path,
    *,
    name: str,
    classes: Sequence[str] = (),
    group: str | None = None,
    seed: int = 0,
    known: Mapping[str, Split] | None = None,
) -> Dataset:
    r"""Read a dataset from class folders; an id is the path below `folder` without extension.

    Class folders whose names start with `_` are skipped, and which files are videos is decided by
    `video_files`. Ids and classes are NFC (`names.plain_name`). The split is seeded, stratified and
    70/15/15 (`splits.folder_splits`). A video that the expression does not match is a group of its
    own; the notes name such videos.

    Args:
        folder: The folder of class folders.
        name: The dataset's name.
        classes: Keep only these classes; empty keeps all.
        group: Regular expression searched in the path below the class folder, such as
            ``^subject\d+``. Files with the same match (of its first group, if it has one) stay
            in one split.
        seed: Seed of the split.
        known: Split of each group (or video without one) from an earlier reading, which it keeps.

    Raises:
        InvalidInputError: If there is no such folder or class, a class has too few files, two
            files have one id, two classes one name, a name is not text, or the expression does not
            compile or matches no file.
        LocalError: A folder cannot be read.
    """
    folder_of, beside = _class_folders(folder, classes)
    pattern = _compile(group)
    found = find_videos(folder, inside=list(folder_of.values()))
    files = _by_id(folder, folder_of, found.files)
    labels: dict[str, str] = {}
    groups: dict[str, str] = {}
    for video_id, path in files.items():
        labels[video_id] = video_id.split("/", 1)[0]
        below = path.relative_to(folder / folder_of[labels[video_id]]).as_posix()
        match = pattern.search(below) if pattern else None
        # An optional group of the expression may take no part in the match.
        if match and (text := match.group(match.re.groups and 1)):
            groups[video_id] = unicodedata.normalize("NFC", text)
    alone = [video_id for video_id in files if video_id not in groups]
    if pattern and not groups:
        raise InvalidInputError(
            f"{folder}: group {group!r} matches none of {len(files)} files, such as "
            f"{listed(map(repr, alone))}; it is searched in the path below the class folder"
        )
    try:
        splits = folder_splits(
            labels, {one: groups.get(one, one) for one in files}, seed=seed, known=known
        )
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
                group=groups.get(video_id, video_id) if pattern else None,
            )
            for video_id, path in files.items()
        ),
        notes=(
            *beside.notes(),
            *found.notes(),
            *spelling_notes((name, label) for label, name in folder_of.items()),
            *_group_notes(group, alone),
        ),
        official_split=False,
    )


def _class_folders(folder: Path, classes: Sequence[str]) -> tuple[dict[str, str], FoundVideos]:
    """The folders to read by class: those of `classes`, or all; and what is skipped beside them."""
    names, beside = class_folders(folder)
    found: dict[str, str] = {}
    for name in names:
        label = plain_name(name, f"{folder}: class folder")
        if label in found:
            raise InvalidInputError(
                f"{folder}: the class folders {found[label]!a} and {name!a} have one name, "
                f"{label!r}; rename one, or put their files together"
            )
        found[label] = name
    wanted = [plain_name(name, "classes") for name in classes]
    unknown = sorted(set(wanted) - set(found))
    if unknown or not found:
        missing = f"no class {', '.join(unknown)}" if unknown else "no class folders"
        raise InvalidInputError(
            f"{folder}: {missing}; the class folders are {', '.join(found) or 'none'}"
        )
    return {label: found[label] for label in wanted or found}, beside


def _by_id(folder: Path, folder_of: Mapping[str, str], found: Sequence[Path]) -> dict[str, Path]:
    """The video files of class folders by id."""
    label_of = {name: label for label, name in folder_of.items()}
    files: dict[str, dict[str, Path]] = {label: {} for label in folder_of}
    for path in found:
        first, *rest = path.relative_to(folder).with_suffix("").parts
        label = label_of[first]
        video_id = unicodedata.normalize("NFC", "/".join([label, *rest]))
        require_text(video_id, f"{folder}: file {path.relative_to(folder).as_posix()!r}")
        if video_id in files[label]:
            raise InvalidInputError(
                f"{folder}: {files[label][video_id].name!a} and {path.name!a} have the same id "
                f"{video_id!r}"
            )
        files[label][video_id] = path
    empty = sorted(label for label, videos in files.items() if not videos)
    if empty:
        raise InvalidInputError(
            f"{folder}: no videos in {', '.join(empty)} "
            f"(endings {' '.join(sorted(VIDEO_ENDINGS))}; hidden and generated files are skipped); "
            "leave the class out with --classes, or start its name with '_'"
        )
    return {video_id: path for videos in files.values() for video_id, path in videos.items()}


def _group_notes(group: str | None, alone: Sequence[str]) -> tuple[str, ...]:
    """Which videos the expression for groups does not match."""
    if group is None or not alone:
        return ()
    return (
        f"videos that --group {group!r} does not match, each a group of its own: {len(alone):,} "
        f"({listed(map(repr, alone))})",
    )


def _compile(group: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(group) if group is not None else None
    except re.error as err:
        raise InvalidInputError(f"group {group!r}: not a regular expression: {err}") from err
