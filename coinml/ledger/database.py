"""The ledger's database: connections, schema migration, transactions.

SQLite serves the processes of one host (WAL mode, one writer at a time), PostgreSQL those of
several.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from coinml.errors import InvalidInputError, LocalError
from coinml.ledger.schema import HEAD
from coinml.runtime.addresses import masked
from coinml.runtime.atomic_files import name_first
from coinml.runtime.sqlite_files import refuse_damaged, says_damaged, way_back

log = logging.getLogger(__name__)

T = TypeVar("T")

WITHOUT_COPY = "remove the file: `coinml collect` registers the videos that are there"
"""What to do about a damaged ledger if there is no copy of it."""

_BUSY_TIMEOUT_S = 60.0
_RECONNECT_S = 60.0
_MIGRATION_LOCK = 0x636F696E  # "coin"


class Database:
    """One database, shared by the threads of a process and opened at first use."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._engine: Engine | None = None
        self._opening = threading.Lock()
        # Within a process a lock is fairer and cheaper than SQLite's polling.
        self._writing = threading.Lock()

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run a function on a connection, in one transaction."""
        return self._run(work, write=False)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run a function in a transaction that is committed when the function returns.

        The function runs again if the connection to the server was lost meanwhile.

        Raises:
            LocalError: The database cannot be written (disk full, no permission, no connection
                for longer than a minute).
        """
        return self._run(work, write=True)

    def close(self) -> None:
        """Close every connection; the next use opens it again."""
        with self._opening:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite."""
        return self.url.startswith("sqlite")

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.url.removeprefix("sqlite:///")) if self.is_sqlite else None

    def _run(self, work: Callable[[Connection], T], *, write: bool) -> T:
        deadline, pause = time.monotonic() + _RECONNECT_S, 0.1
        while True:
            # A server that never answered is probably a wrong address: no retry.
            was_open = self._engine is not None
            try:
                return self._once(self._open(), work, write=write)
            except DBAPIError as err:
                if not (was_open and self._went_away(err)) or time.monotonic() > deadline:
                    raise _translated(err, self.url) from err
                log.warning("lost the connection to the ledger's database; retrying")
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def _once(self, engine: Engine, work: Callable[[Connection], T], *, write: bool) -> T:
        if not self.is_sqlite:
            with engine.begin() as connection:
                return work(connection)
        if not write:
            return self._in_sqlite(engine, work, "BEGIN")
        with self._writing:
            # Take the write lock now: SQLite does not let a reader wait to become a writer.
            return self._in_sqlite(engine, work, "BEGIN IMMEDIATE")

    @staticmethod
    def _in_sqlite(engine: Engine, work: Callable[[Connection], T], begin: str) -> T:
        with engine.connect() as connection:
            connection.exec_driver_sql(begin)
            try:
                result = work(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # On a full disk SQLite has already rolled back.
                with contextlib.suppress(DBAPIError):
                    connection.exec_driver_sql("ROLLBACK")
                raise
            return result

    def _went_away(self, err: DBAPIError) -> bool:
        if self.is_sqlite:
            return False
        return err.connection_invalidated or (
            # The server shuts down, starts up, or is unreachable for a moment.
            type(err.orig).__name__
            in (
                "OperationalError",
                "AdminShutdown",
                "CannotConnectNow",
                "CrashShutdown",
                "ConnectionTimeout",
            )
        )

    def _open(self) -> Engine:
        if self._engine is not None:
            return self._engine
        with self._opening:
            if self._engine is None:
                engine = _create_engine(self.url)
                path = _file_of(engine.url)
                try:
                    if path is not None and path.exists():
                        refuse_damaged(path, "ledger", WITHOUT_COPY)
                    elif path is not None:
                        self._create(path)
                    self._bring_to_head(engine)
                except BaseException:
                    engine.dispose()
                    raise
                self._engine = engine
            return self._engine

    def _create(self, path: Path) -> None:
        """Create a ledger with its tables under another name first.

        A file that is empty under the ledger's own name was therefore not made here: it has lost
        its content.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".ledger.") as folder:
                begun = Path(folder) / path.name
                engine = _create_engine(f"sqlite:///{begun}")
                try:
                    self._bring_to_head(engine)
                finally:
                    # The last connection to be closed empties the log into the file.
                    engine.dispose()
                name_first(begun, path)
        except OSError as err:
            raise LocalError(f"the ledger {path} cannot be created: {err.strerror or err}") from err

    def _bring_to_head(self, engine: Engine) -> None:
        if _version(engine) == HEAD:
            return

        def upgrade(connection: Connection) -> None:
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            _upgrade(connection, self.url)

        self._once(engine, upgrade, write=True)


def schema_version(url: str) -> str | None:
    """The migration that a ledger is at, without migrating it; None for one without tables.

    Raises:
        LocalError: The database does not answer.
    """
    engine = _create_engine(url)
    try:
        if (path := _file_of(engine.url)) is not None:
            refuse_damaged(path, "ledger", WITHOUT_COPY)
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
    except DBAPIError as err:
        raise _translated(err, url) from err
    finally:
        engine.dispose()


def is_current(url: str) -> bool:
    """Whether a ledger exists and opening it would not migrate it.

    Raises:
        LocalError: The database does not answer.
    """
    path = Database(url).path
    return (path is None or path.exists()) and schema_version(url) == HEAD


def _create_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Neither the URL nor SQLAlchemy's message is shown: both may contain a password.
        raise InvalidInputError(
            "the ledger's URL (COINML_LEDGER_URL) is no database URL; one looks like "
            "postgresql+psycopg://user:password@host/database"
        ) from None
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidInputError(
            f"ledger URL {_shown(parsed)}: sqlite and postgresql+psycopg are supported"
        )
    try:
        if parsed.get_backend_name() == "postgresql":
            if parsed.drivername == "postgresql":
                parsed = parsed.set(drivername="postgresql+psycopg")
            return create_engine(parsed, pool_size=16, connect_args={"connect_timeout": 10})
        return _create_sqlite(parsed)
    except (NoSuchModuleError, ModuleNotFoundError) as err:
        raise LocalError(
            f"ledger URL {_shown(parsed)}: its driver is missing; pip install 'coinml[postgres]'"
        ) from err


def _create_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise InvalidInputError("ledger URL: must name a file, e.g. sqlite:////data/ledger.db")
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise LocalError(f"the ledger's folder cannot be created: {err}") from err
    engine = create_engine(
        url,
        pool_size=16,
        # `_in_sqlite` begins and ends transactions with explicit statements: the driver's own
        # handling excludes DDL and cannot begin with the write lock.
        isolation_level="AUTOCOMMIT",
        connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        _switch_to_wal(connection)
        # With WAL, commits survive the death of the process. A power cut may lose the last rows;
        # the next run finds their files and records them again.
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "handle_error")
    def _keep(context: ExceptionContext) -> None:
        # An exception raised by a signal handler does not break a SQLite connection. SQLAlchemy
        # would invalidate it and not roll back, so the lock would last as long as the exception.
        if not isinstance(context.original_exception, Exception):
            context.is_disconnect = False

    return engine


def _file_of(url: URL) -> Path | None:
    """The file of a SQLite database that is named by its path."""
    named = url.database if url.get_backend_name() == "sqlite" else None
    return None if named is None or named.startswith("file:") else Path(named)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # Only the first connection to a new file changes the mode, and SQLite's busy timeout does
    # not apply to that.
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as err:
            if "locked" not in str(err) or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        try:
            return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar())
        except DBAPIError as err:
            # No such table: a new database. Any other error will be raised by the migration.
            log.debug("no schema version: %s", err)
            return None


def _upgrade(connection: Connection, url: str) -> None:
    # Alembic is slow to import, so only where there is something to migrate.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as err:
        raise LocalError(
            f"the ledger {_shown(make_url(url))} was written by a newer coinml ({err}); upgrade it"
        ) from err


def _shown(url: URL) -> str:
    return masked(url.render_as_string(hide_password=True))


def _translated(err: DBAPIError, url: str) -> LocalError:
    said = f"the ledger {_shown(make_url(url))}: {masked(str(err.orig))}"
    return LocalError(
        f"{said}; {way_back('ledger', WITHOUT_COPY)}" if says_damaged(err.orig) else said
    )
