"""Absolute paths in a home's databases, which change when the home is in another place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml_ops.home_databases import LEDGER, MLFLOW, PREFECT

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection, TableClause

_COLUMNS: Mapping[str, Mapping[str, Sequence[str]]] = {
    PREFECT: {
        "deployment": ("parameters", "infra_overrides", "path", "entrypoint", "pull_steps"),
        "deployment_schedule": ("parameters",),
        "deployment_version": ("entrypoint", "pull_steps"),
        # Runs that are planned, and those that a person may start again.
        "flow_run": ("parameters", "job_variables"),
        # Where results are, if tasks keep them.
        "flow_run_state": ("data",),
        "task_run_state": ("data",),
        "work_pool": ("base_job_template", "storage_configuration"),
        "automation": ("trigger", "actions", "actions_on_trigger", "actions_on_resolve"),
        "variable": ("value",),
        "block_document": ("data",),
    },
    LEDGER: {
        "videos": ("path", "source", "url"),
        "attempts": ("source", "url"),
        "sources": ("source",),
        "datasets": ("origin",),
    },
    MLFLOW: {
        "experiments": ("artifact_location",),
        "runs": ("artifact_uri",),
        "logged_models": ("artifact_location",),
        "model_versions": ("source", "storage_location"),
    },
}
_ENCRYPTED = ("block_document", "data")
# A path as such, as a dataset of a folder, and as the URL of a database.
_PREFIXES = ("", "folder:", "sqlite:///")


@dataclass(frozen=True, slots=True)
class Move:
    """A folder that has another path now.

    Attributes:
        old: Its former path.
        new: Its present one.
    """

    old: Path
    new: Path

    def applied_to(self, value: Any) -> Any:
        """A text, or the texts in nested lists and mappings, with the new path for the old."""
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, list):
            return [self.applied_to(one) for one in value]
        if isinstance(value, dict):
            return {key: self.applied_to(one) for key, one in value.items()}
        return value

    def _text(self, text: str) -> str:
        for old, new in self._forms():
            # The new folder may be below the old one, and the text be changed already.
            if _is_below(text, new) and self.new.is_relative_to(self.old):
                return text
            if _is_below(text, old):
                return new + text[len(old) :]
        return text

    def _forms(self) -> Iterator[tuple[str, str]]:
        for prefix in _PREFIXES:
            yield f"{prefix}{self.old}", f"{prefix}{self.new}"
        yield self.old.as_uri(), self.new.as_uri()

    def found_in(self) -> tuple[str, ...]:
        """Texts of which a changed value of a database has one, in the spellings of JSON too."""
        plain = {str(self.old), self.old.as_uri()}
        return tuple(sorted(plain | {json.dumps(one)[1:-1] for one in plain}))


def _is_below(text: str, folder: str) -> bool:
    return text == folder or text.startswith(f"{folder}/")


def relocate(url: str, name: str, move: Move, *, dry_run: bool = False) -> dict[str, int]:
    """Replace the paths below a folder by those below another, in a database at rest.

    All changes are one transaction: a call that is cut off has changed nothing.

    Args:
        url: SQLAlchemy URL of the database.
        name: `ledger`, `mlflow` or `prefect`.
        move: The folders.
        dry_run: Count only.

    Returns:
        The number of values that were changed, by `table.column`.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: The database cannot be read or written.
    """
    from sqlalchemy import create_engine, inspect

    engine = create_engine(url)
    counts: dict[str, int] = {}
    try:
        with engine.begin() as connection:
            inspector = inspect(connection)
            known = set(inspector.get_table_names())
            for table, fields in _COLUMNS[name].items():
                if table not in known:
                    continue
                types = {one["name"]: one["type"] for one in inspector.get_columns(table)}
                keys = inspector.get_pk_constraint(table)["constrained_columns"]
                for field in fields:
                    if field in types:
                        column = _Column(connection, table, field, keys=keys, types=types)
                        count = column.relocate(move, dry_run=dry_run)
                        counts |= {f"{table}.{field}": count} if count else {}
    finally:
        engine.dispose()
    return counts


class _Column:
    """A column of a table, whose values may contain paths."""

    def __init__(
        self,
        connection: Connection,
        table: str,
        field: str,
        *,
        keys: Sequence[str],
        types: Mapping[str, Any],
    ) -> None:
        from sqlalchemy import column
        from sqlalchemy import table as clause

        self._connection = connection
        self._keys = keys
        self._field = field
        self._table: TableClause = clause(
            table, *(column(name, types[name]) for name in {*keys, field})
        )
        self._encrypted = (table, field) == _ENCRYPTED

    def relocate(self, move: Move, *, dry_run: bool) -> int:
        from sqlalchemy import bindparam, select

        change = _in_secret(self._connection, move) if self._encrypted else move.applied_to
        changed = []
        for *key, value in self._rows(move):
            moved = change(value)
            if moved != value:
                changed.append((key, moved))
        if self._field in self._keys:
            # Both places are known: the row of the new one has what came since.
            there = set(self._connection.scalars(select(self._value)).all())
            changed = [(key, moved) for key, moved in changed if moved not in there]
        if changed and not dry_run:
            update = self._table.update().values({self._field: bindparam("moved")})
            for number, name in enumerate(self._keys):
                update = update.where(self._table.c[name] == bindparam(f"key{number}"))
            self._connection.execute(
                update,
                [
                    {"moved": moved, **{f"key{n}": part for n, part in enumerate(key)}}
                    for key, moved in changed
                ],
            )
        return len(changed)

    @property
    def _value(self) -> Any:
        return self._table.c[self._field]

    def _rows(self, move: Move) -> list[Any]:
        from sqlalchemy import Text, cast, or_, select

        query = select(*(self._table.c[name] for name in self._keys), self._value)
        if not self._encrypted:
            text: ColumnElement[str] = cast(self._value, Text)
            query = query.where(
                or_(*(text.contains(one, autoescape=True) for one in move.found_in()))
            )
        return list(self._connection.execute(query).all())


def _in_secret(connection: Connection, move: Move) -> Callable[[Any], Any]:
    """What changes the encrypted value of a block; without the key, nothing."""
    import os

    from cryptography.fernet import Fernet, InvalidToken
    from sqlalchemy import text

    stored = connection.execute(
        text("SELECT value FROM configuration WHERE key = 'ENCRYPTION_KEY'")
    ).scalar()
    stored = json.loads(stored) if isinstance(stored, str) else stored or {}
    key = os.environ.get("PREFECT_SERVER_ENCRYPTION_KEY") or stored.get("fernet_key")

    def changed(value: Any) -> Any:
        if key is None or not isinstance(value, str):
            return value
        fernet = Fernet(key)
        try:
            content = json.loads(fernet.decrypt(value.encode()))
        except InvalidToken:
            return value
        moved = move.applied_to(content)
        return value if moved == content else fernet.encrypt(json.dumps(moved).encode()).decode()

    return changed
