"""Prefect's database with a deployment, a planned run and an encrypted block."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

from coinml.runtime.settings import Settings

KEY = "Zm9yIGEgdGVzdCBvbmx5LCAzMiBieXRlcyBsb25nISE="


def fill_prefect(settings: Settings, tables: Path) -> None:
    """A deployment, a planned run and an encrypted block that name the home."""
    from cryptography.fernet import Fernet

    path = settings.data_dir / "prefect" / "prefect.db"
    shutil.copyfile(tables, path)
    parameters = {
        "selection": {"dataset": str(settings.data_dir / "COIN.json")},
        "sources": [f"file://{settings.home.as_uri()[7:]}/copies", f"{settings.home}-not/this"],
    }
    secret = Fernet(KEY).encrypt(json.dumps({"basepath": f"{settings.home}/results"}).encode())
    rows: dict[str, dict[str, Any]] = {
        "configuration": {"key": "ENCRYPTION_KEY", "value": {"fernet_key": KEY}},
        "deployment": {"name": "hourly", "parameters": parameters},
        "flow_run": {"name": "planned", "parameters": parameters},
        "block_document": {"name": "storage", "data": secret.decode()},
    }
    with closing(sqlite3.connect(path)) as database, database:
        for table, values in rows.items():
            needed = {
                name: "x" if "CHAR" in kind else 0
                for _, name, kind, required, default, _ in database.execute(
                    f"PRAGMA table_info({table})"
                )
                if required and default is None
            }
            fields = needed | values | {"id": str(uuid.uuid4())}
            columns, marks = ", ".join(fields), ", ".join("?" * len(fields))
            database.execute(
                f"INSERT INTO {table} ({columns}) VALUES ({marks})",
                [
                    one if isinstance(one, (str, int)) and name != "data" else json.dumps(one)
                    for name, one in fields.items()
                ],
            )


def basepath_of_block(settings: Settings) -> str:
    """What Prefect reads of the block, by its own code."""
    from prefect.server.utilities.encryption import decrypt_fernet
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    async def read() -> str:
        path = settings.data_dir / "prefect" / "prefect.db"
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        async with AsyncSession(engine) as session:
            stored = (await session.execute(text("SELECT data FROM block_document"))).scalar_one()
            found = await decrypt_fernet(session, json.loads(stored))
        await engine.dispose()
        return str(found["basepath"])

    return asyncio.run(read())
