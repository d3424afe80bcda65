"""Checks that the ledger's and MLflow's databases are at the installed code's migration.

Neither is opened through `Ledger` or MLflow unless it is current, since opening migrates it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import CoinmlError
from coinml.runtime.addresses import without_password
from coinml.runtime.settings import Settings
from coinml_ops.doctor.finding import Finding, installed
from coinml_ops.home_databases import damage_and_remedy

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory


def check_ledger(settings: Settings) -> Finding:
    """Whether the ledger can be read and is at this coinml's migration."""
    from coinml.ledger import Ledger
    from coinml.ledger.database import schema_version
    from coinml.ledger.schema import HEAD

    url = settings.ledger_url
    if _is_missing(url):
        return Finding(subject="ledger", state="ok", text="none yet (the first run creates it)")
    if damaged := _damaged("ledger", Path(url.removeprefix("sqlite:///"))):
        return damaged
    try:
        version = schema_version(url)
        if version is None:
            return Finding(subject="ledger", state="ok", text="empty (the first run fills it)")
        if version > HEAD:
            return Finding(
                subject="ledger",
                state="failed",
                text=f"at migration {version}, this coinml knows {HEAD}",
                remedy="a newer coinml wrote it: use that version",
            )
        if version < HEAD:
            return Finding(
                subject="ledger",
                state="warning",
                text=f"at migration {version}, this coinml has {HEAD}",
                remedy="the next command migrates it; keep a copy if you may go back",
            )
        with Ledger(url) as ledger:
            names = ledger.datasets()
    except CoinmlError as err:
        return Finding(
            subject="ledger", state="failed", text=str(err), remedy="see COINML_LEDGER_URL"
        )
    return Finding(
        subject="ledger",
        state="ok",
        text=f"at migration {version}; datasets: {', '.join(names) or 'none'}",
    )


def check_mlflow_store(settings: Settings) -> Finding:
    """Whether MLflow's local database is at this MLflow's migration."""
    uri, version = settings.tracking_uri, installed("mlflow")
    shown = without_password(uri)
    if _is_missing(uri):
        return Finding(subject="mlflow", state="ok", text=f"{version}, no mlflow.db yet")
    if damaged := _damaged("mlflow", Path(uri.removeprefix("sqlite:///"))):
        return damaged
    found = _revision(uri)
    script = _migrations()
    expected = script.get_current_head()
    if found == expected:
        return Finding(subject="mlflow", state="ok", text=f"{version}, {shown} at {found}")
    text = f"{shown} is at migration {found}, mlflow {version} expects {expected}"
    if found in {one.revision for one in script.walk_revisions()}:
        return Finding(
            subject="mlflow",
            state="warning",
            text=text,
            remedy="its next use migrates it, after which an older mlflow cannot read it: "
            "keep a copy",
        )
    return Finding(
        subject="mlflow",
        state="failed",
        text=text,
        remedy="a newer mlflow has opened it: use that version, or a copy from before",
    )


def check_prefect_database(path: Path) -> Finding:
    """Whether the database of this home's Prefect is whole."""
    if damaged := _damaged("prefect database", path, name="prefect"):
        return damaged
    text = f"{path.stat().st_size / 1e6:.0f} MB"
    return Finding(subject="prefect database", state="ok", text=text)


def _damaged(subject: str, path: Path, *, name: str = "") -> Finding | None:
    """The finding that a database's file is damaged; None if it is whole or not there."""
    found = damage_and_remedy(path, name or subject)
    if found is None:
        return None
    text, remedy = found
    return Finding(subject=subject, state="failed", text=f"{path} {text}", remedy=remedy)


def _is_missing(url: str) -> bool:
    return url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).exists()


def _revision(uri: str) -> str | None:
    from sqlalchemy import create_engine, inspect, text

    path = uri.removeprefix("sqlite:///")
    # Read-only, so that SQLite leaves no journal beside it.
    address = f"sqlite:///file:{path}?mode=ro&uri=true" if path != uri else uri
    engine = create_engine(address)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            row = connection.execute(text("SELECT version_num FROM alembic_version")).first()
    finally:
        engine.dispose()
    return str(row[0]) if row else None


def _migrations() -> ScriptDirectory:
    """MLflow's migrations, without importing MLflow."""
    from alembic.script import ScriptDirectory

    spec = importlib.util.find_spec("mlflow")
    assert spec is not None  # A dependency of coinml.
    assert spec.origin is not None
    return ScriptDirectory(str(Path(spec.origin).parent / "store" / "db_migrations"))
