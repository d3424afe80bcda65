"""Proposed corrections: a file for a person to check, who alone decides what is a correction."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.data.corrections import COLUMNS, CORRECTIONS, LABEL
from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.atomic_files import written_whole
from coinml.runtime.escaping import csv_of_rows

if TYPE_CHECKING:
    from coinml.audit.run_audit import Audit

WHO = "coinml audit"


def check_proposals(path: Path) -> None:
    """Require that proposals can be written to a path, before the audit.

    Raises:
        InvalidInputError: The file exists, its folder does not, or it would be read as decided.
    """
    if path.name == CORRECTIONS:
        raise InvalidInputError(
            f"{path}: {CORRECTIONS} beside the annotations is applied as it is; give the proposals "
            "another name, and check them first"
        )
    if path.exists():
        raise InvalidInputError(f"{path}: exists")
    if not path.parent.is_dir():
        raise InvalidInputError(f"{path}: there is no folder {path.parent}")


def write_proposals(found: Audit, path: Path, decided: Collection[str] = ()) -> None:
    """Write the suspects of train and val in the format of a file of corrections.

    Args:
        found: The audit.
        path: The new file.
        decided: Videos that have a correction already. They are left out: one video has one line,
            and a line gives the label of the annotations, which is not the one that was audited.

    Raises:
        LocalError: The file cannot be written.
    """
    rows = [
        COLUMNS,
        *(
            (one.video_id, LABEL, one.old, one.new, one.who, one.why)
            for one in found.corrections(WHO)
            if one.video_id not in decided
        ),
    ]
    try:
        with written_whole(path) as partial:
            partial.write_bytes(csv_of_rows(rows).encode())
    except OSError as err:
        raise LocalError(f"{path}: {err.strerror or err}") from err
