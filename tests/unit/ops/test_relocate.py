"""Paths in databases and other values, changed from one folder to another."""

from __future__ import annotations

from pathlib import Path

from coinml.data.records import Dataset, Video
from coinml.ledger import Ledger
from coinml_ops.upkeep.relocate import Move, relocate
from tests.helpers.postgres import PostgresServer


def test_a_folder_below_the_former_one_is_changed_once() -> None:
    move = Move(Path("/a"), Path("/a/b"))
    assert move.applied_to(["/a/x", "/a/b/x", "/ab/x", "/a"]) == [
        "/a/b/x",
        "/a/b/x",
        "/ab/x",
        "/a/b",
    ]
    up = Move(Path("/a/b"), Path("/a"))
    assert up.applied_to({"one": "folder:/a/b/x", "two": 3}) == {"one": "folder:/a/x", "two": 3}
    assert up.applied_to("sqlite:////a/b/l.db") == "sqlite:////a/l.db"


def test_a_postgresql_database_is_changed_too(postgres_server: PostgresServer) -> None:
    import sqlalchemy

    url = postgres_server.new_database()
    with Ledger(url) as ledger:
        ledger.register(
            Dataset(
                name="mini",
                videos=(Video(video_id="v0", label="A", subset="training", split="train"),),
                origin="/old/it's/COIN.json",
            )
        )
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE deployment (id uuid PRIMARY KEY, parameters jsonb)"
        )
        connection.exec_driver_sql(
            "INSERT INTO deployment VALUES (gen_random_uuid(), '{\"a\": [\"/old/it''s/b\"]}')"
        )
    move = Move(Path("/old/it's"), Path("/new"))
    assert relocate(url, "ledger", move) == {"datasets.origin": 1}
    assert relocate(url, "prefect", move) == {"deployment.parameters": 1}
    with engine.connect() as connection:
        assert (
            connection.exec_driver_sql("SELECT origin FROM datasets").scalar() == "/new/COIN.json"
        )
        stored = connection.exec_driver_sql("SELECT parameters FROM deployment").scalar()
        assert stored == {"a": ["/new/b"]}
    engine.dispose()
