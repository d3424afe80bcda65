"""A file of predictions: a row for each video, those that failed with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.data.video_files import find_videos
from coinml.errors import InvalidInputError
from coinml.runtime.escaping import write_csv
from coinml.runtime.out_files import check_out_file, out_file

ENDINGS = (".csv", ".parquet")
_COLUMNS = {"video": "string", "label": "string", "score": "float64", "accepted": "boolean"}


def named_videos(named: Sequence[Path]) -> tuple[list[str], tuple[str, ...]]:
    """The video files that are named, and those in named folders; a note on each that is skipped.

    A file that is named is taken whatever its ending, and named twice it is taken once.

    Raises:
        InvalidInputError: A folder has no video in it.
        LocalError: A folder cannot be read.
    """
    files: list[str] = []
    notes: list[str] = []
    for place in named:
        if not place.is_dir():
            files.append(str(place))
            continue
        found = find_videos(place)
        if not found.files:
            raise InvalidInputError(
                f"{place}: no video file in it or below it ({' '.join(VIDEO_ENDINGS)}); hidden "
                "and generated files are skipped"
            )
        files += map(str, found.files)
        notes += (f"{place}: {note}" for note in found.notes())
    return list(dict.fromkeys(files)), tuple(notes)


def check_answer_file(path: Path, *, replace: bool = False) -> None:
    """Require that answers can be written to a path; raises as `check_out_file`."""
    check_out_file(path, endings=ENDINGS, replace=replace)


def write_answers(
    answers: Sequence[Mapping[str, Any]], path: Path, *, replace: bool = False
) -> None:
    """Write answers as `predict_files` returns them; the file appears when it is complete.

    The columns are those of the answers: `video, label, score, top5, error`, and `accepted` where
    a precision was wanted. In CSV, `top5` is JSON, and empty cells are missing values.

    Raises:
        InvalidInputError: As `check_out_file`.
        LocalError: The file cannot be written.
    """
    table = pd.DataFrame(answers)
    table = table.astype({name: kind for name, kind in _COLUMNS.items() if name in table})
    # Without a failed file, the column would have no type.
    table["error"] = table["error"].astype("string")
    with out_file(path, endings=ENDINGS, replace=replace) as partial:
        if path.suffix.lower() == ".parquet":
            table.to_parquet(partial, index=False)
        else:
            write_csv(table.assign(top5=table["top5"].map(_json)), partial)


def _json(top: Any) -> str:
    return json.dumps(list(top), ensure_ascii=False)
