"""Giving a home that is in another folder now the paths of there."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.addresses import masked
from coinml.runtime.settings import Settings
from coinml_ops.deployments.chosen import FILE, Chosen, read_chosen, write_chosen
from coinml_ops.home_databases import LEDGER, MLFLOW, PREFECT, check_database, databases
from coinml_ops.stack import lifecycle, record
from coinml_ops.stack.postgres import Databases
from coinml_ops.upkeep.moved_home import moves_of
from coinml_ops.upkeep.relocate import Move, relocate
from coinml_ops.upkeep.unused_home import check_unused, take_over_record


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedHome:
    """What was changed in a home, or would be.

    Attributes:
        home: Where it is.
        moved_from: Where it was; empty: its databases have no other place.
        changed: Number of paths by what they are in, such as `ledger videos.path`.
    """

    home: str
    moved_from: tuple[str, ...]
    changed: Mapping[str, int]


def move_home(
    settings: Settings, *, moved_from: Path | None = None, dry_run: bool = False
) -> MovedHome:
    """Change the absolute paths of a home that was renamed, copied, or mounted elsewhere.

    Each database is changed in one transaction. What tells where the home was is changed last, so
    that the call after one that was cut off goes on.

    Args:
        settings: The home's, where it is now.
        moved_from: Where it was; None: as its databases say.
        dry_run: Change nothing, and count.

    Raises:
        InvalidInputError: It is in use, `moved_from` is where it is, or nothing names a path there.
        LocalError: A database is damaged, or something cannot be written.
    """
    from sqlalchemy.exc import SQLAlchemyError

    if moved_from == settings.home:
        raise InvalidInputError(f"--from {moved_from}: this is where the home is now")
    with lifecycle.exclusive(settings.home):
        check_unused(settings)
        for name, path in databases(settings.home).items():
            check_database(path, name)
        moves = moves_of(settings) if moved_from is None else (Move(moved_from, settings.home),)
        changed: Counter[str] = Counter()
        for move in moves:
            try:
                changed += _change(settings, move, dry_run=dry_run)
            except SQLAlchemyError as err:
                raise LocalError(masked(f"a database cannot be changed: {err}")) from err
            except OSError as err:
                raise LocalError(f"{err.filename}: {err.strerror}") from err
        # A call that was cut off may have left nothing but the stack's record to change.
        if moved_from is not None and not changed and moves[0] not in moves_of(settings):
            raise InvalidInputError(f"--from {moved_from}: nothing in this home names a path there")
        if moves and not dry_run:
            take_over_record(settings)
    return MovedHome(
        home=str(settings.home),
        moved_from=tuple(str(move.old) for move in moves),
        changed=dict(changed),
    )


def move_chosen(data_dir: Path, move: Move, *, dry_run: bool = False) -> int:
    """Change the paths in `data/deployments.yaml`; return the number of fields that have some.

    Raises:
        InvalidInputError: The file cannot be read.
    """
    before = read_chosen(data_dir).model_dump(mode="json")
    after = move.applied_to(before)
    if after != before and not dry_run:
        write_chosen(data_dir, Chosen.model_validate(after))
    return sum(after[field] != before[field] for field in before)


def _change(settings: Settings, move: Move, *, dry_run: bool) -> Counter[str]:
    found = Counter(
        {
            FILE: move_chosen(settings.data_dir, move, dry_run=dry_run),
            "links": _move_links(settings, move, dry_run=dry_run),
        }
    )
    for name, url in _database_urls(settings):
        counts = relocate(url, name, move, dry_run=dry_run)
        found.update({f"{name} {column}": count for column, count in counts.items()})
    return +found


def _database_urls(settings: Settings) -> Iterator[tuple[str, str]]:
    """The home's databases that exist; those that tell where it was are the last."""
    stack = record.read(settings.home)
    server = Databases(stack.postgres) if stack is not None and stack.postgres else None
    files = databases(settings.home)
    if server is not None:
        yield PREFECT, server.prefect.replace("+asyncpg", "+psycopg")
        yield MLFLOW, server.mlflow
    if files[PREFECT].is_file():
        yield PREFECT, f"sqlite:///{files[PREFECT]}"
    url = settings.ledger_url
    if not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).is_file():
        yield LEDGER, url
    if files[MLFLOW].is_file():
        yield MLFLOW, f"sqlite:///{files[MLFLOW]}"


def _move_links(settings: Settings, move: Move, *, dry_run: bool) -> int:
    """Let links below the home that lead to a former path lead to the present one."""
    top = [path for path in settings.home.iterdir() if path.is_symlink()]
    below = (
        Path(folder, name)
        for root in (settings.data_dir, settings.artifact_root)
        for folder, folders, files in os.walk(root)
        for name in (*folders, *files)
    )
    count = 0
    for path in (*top, *below):
        if not path.is_symlink():
            continue
        target = str(path.readlink())
        moved = move.applied_to(target)
        if moved == target:
            continue
        count += 1
        if not dry_run:
            fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
            fresh.symlink_to(moved)
            fresh.replace(path)
    return count
