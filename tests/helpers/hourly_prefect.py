"""What a run an hour leaves in Prefect's database: rows of a real run, written for other hours."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from coinml.media import write_video
from coinml_ops.stack.services import VACUUM
from tests.helpers.prefect_stack import prefect_stack

EVENTS_KEPT = timedelta(days=7)
"""Prefect's default."""
RUNS_KEPT = timedelta(seconds=int(VACUUM["PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"]))

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNIQUE = ("idempotency_key",)
_PASSING = ("automation_bucket",)
"""Tables whose rows the server removes when the time of a trigger is over."""

Value = Callable[[Mapping[str, str], timedelta], Any]


@dataclass(frozen=True, kw_only=True)
class IdleHour:
    """A database with the deployments of coinml, and what one idle hour adds to it.

    Attributes:
        database: A copy of the real server's file.
        rows: Of each table, the columns and the rows that the hour added.
        log_bytes: What it added to each log, by name.
        began: When it was.
    """

    database: Path
    rows: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Value]]]]
    ids: frozenset[str]
    log_bytes: Mapping[str, int]
    began: datetime

    def write(self, connection: sqlite3.Connection, at: datetime) -> None:
        """Add the rows as an hour at another time would, with ids of its own."""
        fresh = {one: str(uuid.uuid4()) for one in self.ids}
        shift = at - self.began
        for table, (columns, rows) in self.rows.items():
            marks = ", ".join("?" * len(columns))
            names = ", ".join(f'"{name}"' for name in columns)
            connection.executemany(
                f'INSERT INTO "{table}" ({names}) VALUES ({marks})',
                [[value(fresh, shift) for value in row] for row in rows],
            )


def idle_hour(folder: Path) -> IdleHour:
    """Run `collect/hourly` twice with nothing to do, by real processes; the second is the hour."""
    videos = folder / "videos" / "a"
    videos.mkdir(parents=True)
    frames = np.zeros((12, 48, 64, 3), dtype=np.uint8)
    for number in range(3):
        frames[:] = 80 * number
        write_video(videos / f"{number}.mp4", iter(frames), fps=12)
    with prefect_stack(folder / "home") as stack:
        stack.coinml("deploy", "--dataset", f"folder:{videos.parent}")
        stack.without_triggers()
        stack.start_worker("worker", "network", "gpu")
        before = folder / "before.db"
        for number in range(2):
            if number:
                _copy(stack.folder / "prefect.db", before)
                began = datetime.now(UTC)
                sizes = {one.name: one.stat().st_size for one in stack.logs.glob("*.log")}
            run = stack.run("collect/hourly")
            stack.await_state(run, "COMPLETED", within_s=240)
            # Task runs and events are recorded a little later.
            _await_rest(stack.folder / "prefect.db")
        after = folder / "after.db"
        _copy(stack.folder / "prefect.db", after)
        log_bytes = {
            one.name: one.stat().st_size - sizes.get(one.name, 0)
            for one in stack.logs.glob("*.log")
        }
    rows, ids = _added(before, after)
    return IdleHour(database=after, rows=rows, ids=ids, log_bytes=log_bytes, began=began)


def vacuum(database: Path, *, now: datetime) -> None:
    """What the server's vacuum does in a day, at a time that is `now` in the database."""
    from prefect.server.database import provide_database_interface
    from prefect.server.services import db_vacuum
    from prefect.settings import (
        PREFECT_SERVER_DATABASE_CONNECTION_URL,
        PREFECT_SERVER_EVENTS_RETENTION_PERIOD,
        PREFECT_SERVER_SERVICES_DB_VACUUM_BATCH_SIZE,
        PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD,
        temporary_settings,
    )

    # The vacuum asks the clock: what is kept is counted from there.
    later = datetime.now(UTC) - now
    changed: dict[Any, Any] = {
        PREFECT_SERVER_DATABASE_CONNECTION_URL: f"sqlite+aiosqlite:///{database}",
        PREFECT_SERVER_EVENTS_RETENTION_PERIOD: EVENTS_KEPT + later,
        PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD: RUNS_KEPT + later,
        PREFECT_SERVER_SERVICES_DB_VACUUM_BATCH_SIZE: 5000,
    }

    async def run() -> None:
        db = provide_database_interface()
        for work in (
            db_vacuum.vacuum_old_flow_runs,
            db_vacuum.vacuum_events_with_retention_overrides,
            db_vacuum.vacuum_old_events,
            db_vacuum.vacuum_orphaned_logs,
            db_vacuum.vacuum_orphaned_artifacts,
            db_vacuum.vacuum_stale_artifact_collections,
        ):
            await work(db=db)
        engine = await db.engine()
        await engine.dispose()

    with temporary_settings(changed):
        asyncio.run(run())


def _await_rest(database: Path) -> None:
    import time

    counts: list[int] = []
    while len(counts) < 4 or len(set(counts[-4:])) > 1:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            tables = _tables(connection)
            counts.append(
                sum(connection.execute(f'SELECT count(*) FROM "{t}"').fetchone()[0] for t in tables)
            )
        time.sleep(2)


def _copy(database: Path, target: Path) -> None:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    return [name for (name,) in connection.execute(query)]


def _added(before: Path, after: Path) -> tuple[dict[str, Any], frozenset[str]]:
    found: dict[str, Any] = {}
    with closing(sqlite3.connect(after)) as connection:
        connection.execute("ATTACH ? AS early", (str(before),))
        for table in _tables(connection):
            info = connection.execute(f'PRAGMA table_info("{table}")').fetchall()
            columns = [row[1] for row in info]
            if "id" not in columns or table in _PASSING:
                continue
            rows = connection.execute(
                f'SELECT * FROM "{table}" WHERE id NOT IN (SELECT id FROM early."{table}")'
            ).fetchall()
            if rows:
                found[table] = columns, {row[1]: row[2] for row in info}, rows
    ids = frozenset(row[columns.index("id")] for columns, _, rows in found.values() for row in rows)
    return {
        table: (
            columns,
            [
                [
                    _value(value, types[name], ids, unique=name in _UNIQUE)
                    for name, value in zip(columns, row, strict=True)
                ]
                for row in rows
            ],
        )
        for table, (columns, types, rows) in found.items()
    }, ids


def _value(value: Any, type_: str, ids: frozenset[str], *, unique: bool) -> Value:
    if not isinstance(value, str):
        return lambda _fresh, _shift: value
    if type_ == "DATETIME" and value > "2000":
        moment = datetime.fromisoformat(value).replace(tzinfo=UTC)
        return lambda _fresh, shift: (
            (moment + shift).replace(tzinfo=None).isoformat(sep=" ", timespec="microseconds")
        )
    if any(one in ids for one in _ID.findall(value)):
        return lambda fresh, _shift: _ID.sub(lambda m: fresh.get(m[0], m[0]), value)
    if unique:
        return lambda _fresh, _shift: uuid.uuid4().hex
    return lambda _fresh, _shift: value
