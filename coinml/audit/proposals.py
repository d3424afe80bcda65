"""Proposed corrections: a file for a person to check, who alone decides what is a correction."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.data.corrections import COLUMNS, CORRECTIONS, LABEL
from coinml.errors import InvalidInputError
from coinml.runtime.escaping import csv_of_rows
from coinml.runtime.out_files import check_out_file, out_file

if TYPE_CHECKING:
    from coinml.audit.run_audit import Audit

WHO = "coinml audit"


_ENDINGS = (".csv",)


def check_proposals(path: Path, *, replace: bool = False) -> None:
    """Require that proposals can be written to a path, before the audit.

    Raises:
        InvalidInputError: As `check_out_file`, or the file would be read as decided.
        LocalError: Its folder cannot be written.
    """
    if path.name == CORRECTIONS:
        raise InvalidInputError(
            f"{path}: {CORRECTIONS} beside the annotations is applied as it is; give the proposals "
            "another name, and check them first"
        )
    check_out_file(path, endings=_ENDINGS, replace=replace)


def write_proposals(
    found: Audit, path: Path, decided: Collection[str] = (), *, replace: bool = False
) -> None:
    """Write the suspects of train and val in the format of a file of corrections.

    Args:
        found: The audit.
        path: The file.
        decided: Videos that have a correction already. They are left out: one video has one line,
            and a line gives the label of the annotations, which is not the one that was audited.
        replace: Whether an existing file may be replaced.

    Raises:
        InvalidInputError: As `check_proposals`.
        LocalError: The file cannot be written.
    """
    check_proposals(path, replace=replace)
    rows = [
        COLUMNS,
        *(
            (one.video_id, LABEL, one.old, one.new, one.who, one.why)
            for one in found.corrections(WHO)
            if one.video_id not in decided
        ),
    ]
    with out_file(path, endings=_ENDINGS, replace=replace) as partial:
        partial.write_bytes(csv_of_rows(rows).encode())
