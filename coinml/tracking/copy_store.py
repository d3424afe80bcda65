"""Copy a local MLflow store to the database and artifact store of a server.

A local store records artifacts by absolute paths of this machine. The copy records them as a
server does (`mlflow-artifacts:/…`), independent of the folder or bucket that the server uses.
The source is only read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.addresses import masked, parts_of
from coinml.runtime.process_identity import is_dead
from coinml.tracking.mlflow_store import OWNER, MlflowStore

if TYPE_CHECKING:
    from sqlalchemy import Connection, MetaData, Table

_ARTIFACT_PLACES = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""The columns of MLflow's tables that hold artifact locations."""

_ROWS = 1000
_SERVED = "mlflow-artifacts:/"
_DEFAULT_EXPERIMENT = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedStore:
    """What a copy of a store contains.

    Attributes:
        runs: Number of runs.
        versions: Number of registered versions.
        files: Number of artifact files.
        size_bytes: Total size of these files.
        elsewhere: Artifact locations outside this store's folder, which were left unchanged.
    """

    runs: int
    versions: int
    files: int
    size_bytes: int
    elsewhere: tuple[str, ...]


def copy_store(store: MlflowStore, database: str, artifacts: str) -> CopiedStore:
    """Copy a local store completely: runs, models, registry and all artifacts.

    Artifacts are copied first and the database last, in one transaction. An interrupted call
    therefore leaves no incomplete store, and the next call continues.

    Args:
        store: The local store (SQLite).
        database: SQLAlchemy URL of the new database, "sqlite:////path/mlflow.db" or
            "postgresql://…": it must not exist yet, or have no runs.
        artifacts: Folder or fsspec URL that the server will serve artifacts from.

    Raises:
        InvalidInputError: The source is not a local store, or the destination is not empty.
        LocalError: A copied file has another size at the destination.
    """
    if not store.uri.startswith("sqlite:///"):
        raise InvalidInputError(f"{store.shown} is not a local SQLite store; only those are copied")
    origin = Path(store.uri.removeprefix("sqlite:///"))
    if not origin.is_file():
        raise InvalidInputError(f"there are no runs yet: {origin} does not exist")
    _check_at_rest(store)
    with _new_database(database) as url:
        files, size_bytes = _copy_artifacts(store.artifact_root, artifacts)
        places = _Places(store.artifact_root)
        runs, versions = _copy_rows(store.uri, url, places)
    return CopiedStore(
        runs=runs,
        versions=versions,
        files=files,
        size_bytes=size_bytes,
        elsewhere=tuple(sorted(map(masked, places.elsewhere))),
    )


class _Places:
    """Translates artifact locations to a server's, and collects those outside the store."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self.elsewhere: set[str] = set()

    def served(self, place: str | None) -> str | None:
        """The same location below the server's artifact root, or unchanged if outside the store."""
        if not place or parts_of(place).scheme not in ("", "file"):
            return place
        path = Path(unquote(parts_of(place).path))
        if path.is_relative_to(self._root):
            return _SERVED + path.relative_to(self._root).as_posix()
        # The home folder may have been moved, with its artifacts, since the path was recorded.
        for number, part in enumerate(path.parts):
            tail = Path(*path.parts[number + 1 :])
            if part == self._root.name and (self._root / tail).exists():
                return _SERVED + tail.as_posix()
        self.elsewhere.add(place)
        return place


@contextmanager
def _new_database(database: str) -> Iterator[str]:
    """Yields the URL of a database with empty MLflow tables.

    An SQLite file gets its final name only when the block succeeds.
    """
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        url = make_url(database)
    except ArgumentError:
        raise InvalidInputError(
            "--to: must be sqlite:////PATH/mlflow.db or postgresql://USER@HOST/DATABASE"
        ) from None
    if url.get_backend_name() == "sqlite":
        final = Path(url.database or "")
        if not final.name or final.exists():
            shown = masked(database)
            raise InvalidInputError(f"--to {shown}: must name a file that does not exist yet")
        final.parent.mkdir(parents=True, exist_ok=True)
        begun = final.with_name(f"{final.name}.part")
        begun.unlink(missing_ok=True)
        yield _with_tables(f"sqlite:///{begun}")
        begun.with_name(f"{begun.name}.lock").unlink(missing_ok=True)
        begun.replace(final)
        return
    if url.get_backend_name() != "postgresql":
        raise InvalidInputError(f"--to {url.drivername}: must be sqlite or postgresql")
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        # Fail at once here: MLflow would retry for minutes.
        create_engine(url, connect_args={"connect_timeout": 10}).connect().close()
        yield _with_tables(url.render_as_string(hide_password=False))
    except ModuleNotFoundError as err:
        raise LocalError(f"no {err.name}: pip install 'coinml[postgres]'") from None
    except SQLAlchemyError as err:
        # The driver's message may contain the password.
        raise LocalError(f"{masked(url.render_as_string())}: {type(err).__name__}") from None


def _with_tables(url: str) -> str:
    MlflowStore(uri=url, artifact_root=Path()).client().search_experiments(max_results=1)
    return url


def _check_at_rest(store: MlflowStore) -> None:
    """Refuse to copy a store that a live process writes to."""
    client = store.client()
    experiments = [one.experiment_id for one in client.search_experiments()]
    for run in client.search_runs(experiments, "attributes.status = 'RUNNING'"):
        if not is_dead(run.data.tags.get(OWNER, "")):
            raise InvalidInputError(
                f"run {run.info.run_name} is still running: move the store when it has ended"
            )


def _copy_artifacts(root: Path, artifacts: str) -> tuple[int, int]:
    """Copy the files that are missing or of another size; return number and bytes of all."""
    import fsspec

    target, base = fsspec.core.url_to_fs(artifacts)
    base = base.rstrip("/")
    sizes = {
        file.relative_to(root).as_posix(): file.stat().st_size
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }
    # Nothing to copy if the server will serve this very folder.
    for name, size_bytes in sizes.items() if Path(base) != root.resolve() else ():
        place = f"{base}/{name}"
        if not target.exists(place) or target.size(place) != size_bytes:
            target.makedirs(place.rpartition("/")[0], exist_ok=True)
            target.put_file(str(root / name), place)
            if target.size(place) != size_bytes:
                raise LocalError(
                    f"{masked(place)}: {target.size(place)} bytes of {size_bytes} arrived"
                )
    return len(sizes), sum(sizes.values())


def _copy_rows(origin: str, destination: str, places: _Places) -> tuple[int, int]:
    """Copy every table, in the order of their foreign keys; return numbers of runs and versions."""
    from sqlalchemy import MetaData, create_engine, func, insert, select

    source, target = create_engine(origin), create_engine(destination)
    try:
        have, want = MetaData(), MetaData()
        have.reflect(source)
        want.reflect(target)
        with source.connect() as reading, target.begin() as writing:
            # One transaction, so that all tables are read in one consistent state.
            reading.exec_driver_sql("BEGIN")
            _check_empty(reading, writing, have, want, name=masked(target.url.render_as_string()))
            tables = [table for table in want.sorted_tables if table.name != "alembic_version"]
            for table in reversed(tables):
                writing.execute(table.delete())
            for table in tables:
                _write_null_as_null(table)
                rows = reading.execute(select(have.tables[table.name]))
                for some in rows.mappings().partitions(_ROWS):
                    writing.execute(
                        insert(table),
                        [_with_served_places(table.name, dict(row), places) for row in some],
                    )
            _continue_counting(writing, tables)
            runs, versions = (
                writing.scalar(select(func.count()).select_from(want.tables[name])) or 0
                for name in ("runs", "model_versions")
            )
    finally:
        source.dispose()
        target.dispose()
    return runs, versions


def _check_empty(
    reading: Connection, writing: Connection, have: MetaData, want: MetaData, *, name: str
) -> None:
    from sqlalchemy import select

    old, new = (
        connection.scalar(select(tables.tables["alembic_version"]))
        for connection, tables in ((reading, have), (writing, want))
    )
    if old != new:
        raise InvalidInputError(
            f"the store has version {old} of MLflow's tables, and the new database {new}: "
            "after a backup, `mlflow db upgrade` updates a store"
        )
    for table in ("runs", "registered_models", "logged_models"):
        if writing.execute(select(want.tables[table]).limit(1)).first() is not None:
            raise InvalidInputError(f"--to {name}: it already has {table}")


def _write_null_as_null(table: Table) -> None:
    """Write None as SQL NULL; SQLAlchemy would write the JSON text `null`."""
    from sqlalchemy import JSON

    for column in table.columns:
        if isinstance(column.type, JSON):
            column.type = type(column.type)(none_as_null=True)


def _with_served_places(table: str, row: dict[str, Any], places: _Places) -> dict[str, Any]:
    if table == "experiments" and str(row["experiment_id"]) == _DEFAULT_EXPERIMENT:
        # MLflow creates the default experiment with a path in the working folder.
        return row | {"artifact_location": _SERVED + _DEFAULT_EXPERIMENT}
    changed = {column: places.served(row[column]) for column in _ARTIFACT_PLACES.get(table, ())}
    return row | changed


def _continue_counting(writing: Connection, tables: list[Table]) -> None:
    """Set PostgreSQL's sequences past the copied ids; inserting rows does not advance them."""
    from sqlalchemy import func, select

    if writing.dialect.name != "postgresql":
        return
    for table in tables:
        for column in table.primary_key.columns:
            if "nextval" in str(getattr(column.server_default, "arg", "")):
                highest = writing.scalar(select(func.max(column)))
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                if highest:
                    writing.execute(select(func.setval(sequence, highest)))
