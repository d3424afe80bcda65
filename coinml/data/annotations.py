"""Reading datasets: files in COIN's JSON layout, CSV files of labels, and class folders."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from coinml.data.corrections import corrected, corrections_beside
from coinml.data.folders import read_folder
from coinml.data.label_tables import read_label_table
from coinml.data.names import plain_name, shown, spelling_notes
from coinml.data.recorded_splits import recorded_split
from coinml.data.records import Dataset, Step, Subset, Video
from coinml.data.splits import limit_videos, official_split
from coinml.data.taxonomy import TAXONOMY_FILES, find_taxonomy
from coinml.errors import InvalidInputError

COIN = "coin"
"""Default name of a dataset that is a JSON file."""

FOLDER_PREFIX = "folder:"
SUBSETS: tuple[Subset, ...] = ("training", "testing")
Stamp = tuple[tuple[str, int, int], ...]
"""Path, size in bytes and modification time in nanoseconds of each file."""

LONGEST_S = 1_000_000
"""Longest time in annotations: over eleven days. Limits are computed from it, and dates."""

_LONGEST_INTEGER = 1000
_NOT_JSON = {
    b"\x1f\x8b": ("compressed with gzip", "gunzip"),
    b"\xfd7zXZ": ("compressed with xz", "unxz"),
    b"BZh": ("compressed with bzip2", "bunzip2"),
    b"PK\x03\x04": ("a zip archive", "unzip"),
    b"version https://git-lfs": ("a pointer of Git LFS", "git lfs pull"),
}

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")


def load_dataset(
    ref: str,
    *,
    name: str | None = None,
    classes: Sequence[str] = (),
    limit: int | None = None,
    group: str | None = None,
    seed: int = 0,
    splits_dir: Path | None = None,
) -> Dataset:
    """Read the dataset that `--dataset` names.

    Args:
        ref: A JSON file in COIN's layout, a CSV file of labels (`label_tables`), or `folder:DIR`
            with one folder per class. Corrections beside it are applied (`corrections`).
        name: The dataset's name; default: `coin` for a JSON file, the name of a CSV file without
            its ending, DIR's name for a folder.
        classes: Keep only these classes; empty keeps all.
        limit: Keep at most this many videos, stratified by class and split.
        group: Only for folders: regular expression. Files whose paths match it with the same
            text (a subject, a source video) stay in one split.
        seed: Seed of the val split, and for folders of the test split.
        splits_dir: Only for folders: where the split is recorded, so that no video changes its
            side when the folder grows; None records nothing.

    Raises:
        InvalidInputError: If the file, an entry, a class, the name or the limit is wrong;
            the text names the file, the id and the field.
    """
    if ref.startswith(FOLDER_PREFIX):
        place = Path(ref.removeprefix(FOLDER_PREFIX)).expanduser()
        name = name or place.resolve().name
        cut: dict[str, Any] = {"name": name, "classes": classes, "group": group, "seed": seed}
        _check_name(name)
        dataset = _recorded(partial(read_folder, place, **cut), cut, splits_dir)
        dataset = corrected(dataset, corrections_beside(place), classes=classes)
    else:
        place = Path(ref).expanduser()
        table = is_label_table(ref)
        if group is not None:
            own = "has its groups in the column 'group'" if table else "publishes its own split"
            raise InvalidInputError(f"group {group!r}: only for {FOLDER_PREFIX}DIR; {ref} {own}")
        name = name or (place.stem if table else COIN)
        _check_name(name)
        if table:
            cut = {"name": name, "group": None, "seed": seed}
            read = partial(read_label_table, place, name=name, seed=seed)
            dataset = _recorded(read, cut, splits_dir)
        else:
            dataset = read_coin(place, name=name, seed=seed)
        dataset = _keep_classes(corrected(dataset, corrections_beside(place)), classes)
    if limit is not None:
        dataset = replace(dataset, videos=limit_videos(dataset.videos, limit, seed=seed))
    return dataset


def is_label_table(ref: str) -> bool:
    """Whether `--dataset` names a CSV file of labels."""
    return not ref.startswith(FOLDER_PREFIX) and Path(ref).suffix.lower() == ".csv"


def _recorded(
    read: Callable[..., Dataset], cut: Mapping[str, Any], splits_dir: Path | None
) -> Dataset:
    """Read a dataset whose videos keep the sides that are recorded, if they are."""
    if splits_dir is None:
        return read()
    with recorded_split(splits_dir, cut["name"], seed=cut["seed"], group=cut["group"]) as record:
        dataset = read(known=record.known)
        record.update(dataset)
        return dataset


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"dataset name {name!r}: use 1 to 64 letters, digits, '_', '.' and '-' "
            "(set it with --name)"
        )


def read_coin(path: Path, *, name: str = COIN, seed: int = 0) -> Dataset:
    """Read a file in COIN's official layout; the taxonomy beside it gives the domains.

    Raises:
        InvalidInputError: If the file is not in the layout; names file, id and field.
    """
    database = _database(path)
    entries = database.values()
    taxonomy = find_taxonomy(path.parent)
    domains = taxonomy.domains if taxonomy else {}
    videos = tuple(
        _video(path, video_id, entry, domains=domains, seed=seed)
        for video_id, entry in database.items()
    )
    if not videos:
        raise InvalidInputError(f"{path}: 'database' is empty")
    spellings = [
        (entry["class"], video.label) for entry, video in zip(entries, videos, strict=True)
    ]
    return Dataset(name=name, videos=videos, origin=str(path), notes=spelling_notes(spellings))


def annotations_stamp(path: Path) -> Stamp:
    """Path, size and modification time of the file, the taxonomy and the corrections beside it."""
    beside = [path.parent / name for name in TAXONOMY_FILES]
    files = [path, *beside, corrections_beside(path)]
    facts = [(str(file.absolute()), file.stat()) for file in files if file.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in facts)


def _keep_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    if not classes:
        return dataset
    unknown = sorted(set(classes) - set(dataset.classes))
    if unknown:
        known = ", ".join(dataset.classes)
        raise InvalidInputError(
            f"{dataset.origin}: no class {', '.join(unknown)}; the classes are {known}"
        )
    wanted = set(classes)
    return replace(dataset, videos=tuple(v for v in dataset.videos if v.label in wanted))


def _database(path: Path) -> Mapping[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = sorted({key for key in keys if keys.count(key) > 1})
            raise InvalidInputError(f"{path}: duplicate keys: {', '.join(twice)}")
        return record

    try:
        file = path.read_bytes()
    except OSError as err:
        raise InvalidInputError(
            f"{path}: cannot be read: {err.strerror or err}; expected COIN's JSON, "
            f"a CSV file or {FOLDER_PREFIX}DIR"
        ) from err
    for begin, (kind, command) in _NOT_JSON.items():
        if file.startswith(begin):
            raise InvalidInputError(f"{path}: {kind}, not JSON; run {command} first")
    try:
        # As JSON may be: UTF-8, or with a byte order mark UTF-16 or UTF-32.
        content = json.loads(file, object_pairs_hook=unique, parse_int=_integer)
    except UnicodeDecodeError as err:
        raise InvalidInputError(f"{path}: {_not_text(err)}") from err
    except RecursionError as err:
        raise InvalidInputError(f"{path}: not JSON of COIN's layout: nested too deeply") from err
    except ValueError as err:
        if isinstance(err, InvalidInputError):
            raise
        raise InvalidInputError(f"{path}: not JSON: {err}") from err
    if not isinstance(content, dict) or "database" not in content:
        raise InvalidInputError(f"{path}: expected an object with the key 'database'")
    database = content["database"]
    if not isinstance(database, dict):
        raise InvalidInputError(
            f"{path}, key 'database': {shown(database)} is not an object with a video's id as key"
        )
    return database


def _integer(digits: str) -> int | float:
    """An integer; infinity if Python would not convert it, so that its field is refused."""
    return int(digits) if len(digits) <= _LONGEST_INTEGER else math.inf


def _not_text(err: UnicodeDecodeError) -> str:
    """Why a file's bytes are no JSON text."""
    return (
        f"not JSON: byte {err.start:,} ({err.object[err.start : err.end].hex(' ')}) is not "
        f"{err.encoding}; save it as UTF-8 (iconv -f latin1 -t utf-8)"
    )


def _video(
    path: Path, video_id: str, entry: Any, *, domains: Mapping[str, str], seed: int
) -> Video:
    where = f"{path}: video {video_id!r}"
    if not _ID.fullmatch(video_id):
        raise InvalidInputError(f"{where}: an id has 1 to 64 letters, digits, '_' and '-'")
    if not isinstance(entry, dict):
        raise InvalidInputError(f"{where}: expected an object, found {type(entry).__name__}")
    label = entry.get("class")
    if not isinstance(label, str):
        raise InvalidInputError(
            f"{where}, field 'class': {shown(label)} is not the name of a class"
        )
    label = plain_name(label, f"{where}, field 'class'")
    subset = entry.get("subset")
    if subset not in SUBSETS:
        raise InvalidInputError(
            f"{where}, field 'subset': {shown(subset)} is not one of {', '.join(SUBSETS)}"
        )
    start_s = _seconds(where, entry, "start")
    end_s = _seconds(where, entry, "end")
    if start_s is not None and end_s is not None and end_s <= start_s:
        raise InvalidInputError(f"{where}, field 'end': {end_s} is not after 'start' {start_s}")
    duration_s = _seconds(where, entry, "duration")
    if duration_s == 0:
        raise InvalidInputError(f"{where}, field 'duration': 0 is not a length")
    return Video(
        video_id=video_id,
        label=label,
        subset=subset,
        split=official_split(video_id, subset, seed=seed),
        duration_s=duration_s,
        start_s=start_s,
        end_s=end_s,
        domain=domains.get(label),
        steps=_steps(where, entry.get("annotation")),
    )


def _seconds(where: str, entry: Mapping[str, Any], field: str) -> float | None:
    """A field in seconds, None where it is missing; COIN writes 0 as an integer."""
    value = entry.get(field)
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InvalidInputError(
            f"{where}, field '{field}': {shown(value)} is not a number of seconds"
        )
    if seconds < 0:
        raise InvalidInputError(f"{where}, field '{field}': {value!r} is negative")
    if seconds > LONGEST_S:
        raise InvalidInputError(
            f"{where}, field '{field}': {shown(value)} seconds is more than {LONGEST_S:,}"
        )
    return seconds


def _steps(where: str, annotation: Any) -> tuple[Step, ...]:
    """The annotated segments, none where the field is missing or null."""
    if annotation is None:
        return ()
    if not isinstance(annotation, list):
        raise InvalidInputError(
            f"{where}, field 'annotation': {shown(annotation)} is not a list of segments"
        )
    steps = []
    for number, item in enumerate(annotation):
        at = f"{where}, field 'annotation'[{number}]"
        if not isinstance(item, dict):
            raise InvalidInputError(
                f"{at}: {shown(item)} is not an object with id, segment and label"
            )
        segment, step_id, label = item.get("segment"), item.get("id"), item.get("label")
        if not isinstance(segment, list) or len(segment) != 2:
            raise InvalidInputError(f"{at}, 'segment': {shown(segment)} is not [start, end]")
        start_s, end_s = (_seconds(at, {"segment": value}, "segment") for value in segment)
        if start_s is None or end_s is None or end_s <= start_s:
            raise InvalidInputError(
                f"{at}, 'segment': {shown(segment)} is not [start, end > start]"
            )
        if isinstance(step_id, bool) or not isinstance(step_id, int | str) or step_id == "":
            raise InvalidInputError(f"{at}, 'id': {shown(step_id)} is not the id of a step")
        if not isinstance(label, str):
            raise InvalidInputError(f"{at}, 'label': {shown(label)} is not a string")
        steps.append(
            Step(
                step_id=plain_name(str(step_id), f"{at}, 'id'"),
                label=plain_name(label, f"{at}, 'label'") if label.strip() else "",
                start_s=start_s,
                end_s=end_s,
            )
        )
    return tuple(sorted(steps, key=lambda step: step.start_s))
