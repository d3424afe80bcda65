"""Copy a ledger to another database: from SQLite to PostgreSQL in mid-way, or back."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Float,
    Integer,
    String,
    Table,
    func,
    insert,
    select,
)

from coinml.errors import InvalidInputError
from coinml.ledger.database import Database
from coinml.ledger.foreign_values import finite
from coinml.ledger.leases import is_held
from coinml.ledger.schema import attempts, metadata, sources, videos
from coinml.runtime.addresses import masked, plain

_ROWS = 1000

_ENDS_WITH_PROCESS: Mapping[str, dict[str, Any]] = {
    videos.name: {"lease_owner": None, "lease_until": None},
    sources.name: {"probe_owner": None, "probe_until": None},
}
"""Columns that say what a process is doing; nobody uses a ledger while it is copied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedLedger:
    """What a copy contains.

    Attributes:
        rows: Number of rows by table: videos, attempts, sources, datasets.
        changed: Values that the new database cannot hold, with what was written instead, as texts.
    """

    rows: Mapping[str, int]
    changed: tuple[str, ...]


def copy_ledger(url: str, destination: str) -> CopiedLedger:
    """Copy states, attempts, faults, times of the next attempt, and what is known of sources.

    All in one transaction: an interrupted call leaves an empty ledger. The source is only read.

    Args:
        url: SQLAlchemy URL of the ledger.
        destination: SQLAlchemy URL of the new one: without rows.

    Raises:
        InvalidInputError: The destination has rows or is the source, the source does not exist, or
            a process works on its videos.
        LocalError: One of the databases cannot be used.
    """
    if plain(url) == plain(destination):
        raise InvalidInputError(f"--to {masked(destination)}: is the ledger itself")
    source, target = Database(url), Database(destination)
    if source.path is not None and not source.path.exists():
        raise InvalidInputError(f"there is no ledger yet: {source.path} does not exist")
    changed: list[str] = []

    def copy(reading: Connection, writing: Connection) -> dict[str, int]:
        _check_at_rest(reading)
        _check_empty(writing, masked(destination))
        counts = {}
        for table in metadata.sorted_tables:
            copied = 0
            for rows in reading.execute(select(table)).mappings().partitions(_ROWS):
                values = [dict(_fitting(table, dict(row), changed)) for row in rows]
                writing.execute(insert(table), values)
                copied += len(values)
            counts[table.name] = copied
            if writing.scalar(select(func.count()).select_from(table)) != copied:
                raise InvalidInputError(f"{masked(destination)}: another process writes to it")
        _continue_counting(writing)
        return counts

    try:
        counts = source.read(lambda reading: target.write(lambda writing: copy(reading, writing)))
    finally:
        source.close()
        target.close()
    return CopiedLedger(rows=counts, changed=tuple(changed))


def _check_at_rest(reading: Connection) -> None:
    now = time.time()
    leases = select(videos.c.lease_owner, videos.c.lease_until).where(videos.c.lease_until > now)
    for owner, until in reading.execute(leases.distinct()):
        if owner and is_held(str(owner), until, now=now):
            process = str(owner).split("|")[1:2]
            raise InvalidInputError(
                f"process {' '.join(process) or owner} is downloading videos of this ledger: wait "
                "until it has ended (`coinml down` stops scheduled runs)"
            )


def _check_empty(writing: Connection, shown: str) -> None:
    for table in metadata.sorted_tables:
        if writing.execute(select(table).limit(1)).first() is not None:
            raise InvalidInputError(f"--to {shown}: it has {table.name} already")


def _fitting(table: Table, row: Mapping[str, Any], changed: list[str]) -> Iterator[tuple[str, Any]]:
    """A row's values as the columns' types have them; SQLite holds any value in any column."""
    cleared = _ENDS_WITH_PROCESS.get(table.name, {})
    for column in table.columns:
        value = cleared.get(column.name, row[column.name])
        fits = value
        if value is not None and isinstance(column.type, String):
            # PostgreSQL has no null characters in texts, and limits their length.
            fits = str(value).replace("\0", "\N{REPLACEMENT CHARACTER}")[: column.type.length]
        elif value is not None and isinstance(column.type, (Float, Integer, BigInteger)):
            fits = finite(value)
            if fits is not None and isinstance(column.type, Integer):
                fits = value if isinstance(value, int) else int(fits)
        if fits is None and not column.nullable:
            fits = "" if isinstance(column.type, String) else 0
        if fits != value:
            key = "/".join(str(row[one.name]) for one in table.primary_key.columns)
            changed.append(f"{table.name} {key}, {column.name}: {value!r} became {fits!r}")
        yield column.name, fits


def _continue_counting(writing: Connection) -> None:
    """Set PostgreSQL's sequence past the copied ids; inserting rows does not advance it."""
    highest = writing.scalar(select(func.max(attempts.c.id)))
    if writing.dialect.name == "postgresql" and highest:
        sequence = func.pg_get_serial_sequence(attempts.name, attempts.c.id.name)
        writing.execute(select(func.setval(sequence, highest)))
