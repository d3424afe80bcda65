"""What somebody has paused or limited on a Prefect server, read from its SQLite file.

A server with another database begins without it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from coinml.errors import LocalError

_EDITS = {
    "deployment {} is paused": (
        "SELECT flow.name || '/' || deployment.name FROM deployment "
        "JOIN flow ON flow.id = deployment.flow_id WHERE deployment.paused"
    ),
    "schedule {} is inactive": (
        "SELECT flow.name || '/' || deployment.name || ' ' || coalesce(slug, '') "
        "FROM deployment_schedule JOIN deployment ON deployment.id = deployment_id "
        "JOIN flow ON flow.id = deployment.flow_id WHERE NOT active"
    ),
    "work pool {} is paused": "SELECT name FROM work_pool WHERE is_paused",
    "work queue {} is paused": "SELECT name FROM work_queue WHERE is_paused",
    "automation {} is disabled": "SELECT name FROM automation WHERE NOT enabled",
    "work queue {} at once": (
        "SELECT name || ' has ' || concurrency_limit || ' runs' FROM work_queue "
        "WHERE concurrency_limit IS NOT NULL"
    ),
    "limit {}": "SELECT name || ' is ' || \"limit\" FROM concurrency_limit_v2",
}


def edits_in(database: Path) -> list[str]:
    """What is paused, disabled or limited, as texts for people; none without a file.

    Raises:
        LocalError: It is not the database of a Prefect server.
    """
    if not database.is_file():
        return []
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return [
                text.format(*row)
                for text, query in _EDITS.items()
                for row in connection.execute(query)
            ]
    except sqlite3.Error as err:
        raise LocalError(f"{database}: {err}") from err
