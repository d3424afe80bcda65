"""Paths of a home in its databases: absolute ones, which change when the home is elsewhere."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

_COLUMNS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "ledger": {"videos": ("path",), "datasets": ("origin",)},
    "mlflow": {
        "experiments": ("artifact_location",),
        "runs": ("artifact_uri",),
        "logged_models": ("artifact_location",),
        "model_versions": ("source", "storage_location"),
    },
}


def relocate(database: Path, name: str, old: Path, new: Path) -> int:
    """Replace the paths below a folder by those below another, in a database at rest.

    Args:
        database: The SQLite file.
        name: `ledger` or `mlflow`; the others have no paths that matter.
        old: The former folder.
        new: The present one.

    Returns:
        The number of values that were changed.

    Raises:
        sqlite3.Error: The database cannot be written.
    """
    columns = _COLUMNS.get(name, {})
    # A path as such, behind the prefix of a dataset of folders, and as a URI.
    pairs = [
        (f"{before}{one_old}/", f"{before}{one_new}/")
        for before, one_old, one_new in (
            ("", old, new),
            ("folder:", old, new),
            ("", old.as_uri(), new.as_uri()),
        )
    ]
    changed = 0
    with closing(sqlite3.connect(database)) as connection, connection:
        known = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
        for table, fields in columns.items():
            for field in fields if table in known else ():
                for before, after in pairs:
                    changed += connection.execute(
                        f"UPDATE {table} SET {field} = ? || substr({field}, ?) "
                        f"WHERE substr({field}, 1, ?) = ?",
                        (after, len(before) + 1, len(before), before),
                    ).rowcount
    return changed
