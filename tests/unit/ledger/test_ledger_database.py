"""The ledger's database: creation, migration, sharing, and unusable databases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete

from coinml.errors import InvalidInputError, LocalError
from coinml.ledger import FileFacts, Ledger, database
from coinml.ledger.database import Database
from coinml.ledger.schema import HEAD, metadata, videos
from tests.helpers.ledger_rows import attempt, dataset, facts, ids


def test_many_processes_may_open_a_new_ledger_at_once(ledger_url: str) -> None:
    script = "import sys; from coinml.ledger import Ledger; print(Ledger(sys.argv[1]).datasets())"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, ledger_url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in started:
        out, err = process.communicate(timeout=60)
        assert (out.strip(), err) == ("[]", "")


def test_the_migrations_create_the_tables_of_the_schema(ledger_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    from sqlalchemy import create_engine, text

    with Ledger(ledger_url) as ledger:
        ledger.datasets()
    engine = create_engine(ledger_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar() == HEAD
    engine.dispose()


def test_a_ledger_of_a_newer_version_is_refused(ledger_url: str) -> None:
    from sqlalchemy import create_engine, text

    with Ledger(ledger_url) as ledger:
        ledger.datasets()
    engine = create_engine(ledger_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with Ledger(ledger_url) as ledger, pytest.raises(LocalError, match="newer coinml"):
        ledger.datasets()


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/db", "sqlite://", "sqlite:///:memory:"])
def test_a_bad_url_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match=r"ledger( URL|'s URL)"):
        Ledger(url).datasets()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_server_is_reported_at_once_and_without_the_password() -> None:
    pytest.importorskip("psycopg")
    ledger = Ledger("postgresql+psycopg://joe:s3cret@127.0.0.1:1/coinml")
    start = time.monotonic()
    with pytest.raises(LocalError, match="127") as caught:
        ledger.datasets()
    assert time.monotonic() - start < 5
    assert "s3cret" not in str(caught.value)


def test_a_read_only_folder_is_a_local_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LocalError):
        Ledger(f"sqlite:///{tmp_path}/file/ledger.db").datasets()


@pytest.mark.parametrize(
    ("left", "says"), [(0, "is empty"), (30, "is no database"), (0.5, "is truncated")]
)
def test_a_ledger_that_lost_content_is_named_and_not_taken_for_new(
    tmp_path: Path, left: float, says: str
) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(f"sqlite:///{path}") as ledger:
        ledger.register(dataset(40))
    size_bytes = path.stat().st_size
    os.truncate(path, int(size_bytes * left) if left < 1 else int(left))
    content = path.read_bytes()
    for use in (lambda one: one.datasets(), lambda one: one.register(dataset(2))):
        with (
            Ledger(f"sqlite:///{path}") as ledger,
            pytest.raises(LocalError, match=rf"ledger\.db {says}.*coinml restore PLACE --only"),
        ):
            use(ledger)
    assert path.read_bytes() == content


def test_a_damaged_page_is_named_with_the_way_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger(f"sqlite:///{path}") as ledger:
        ledger.register(dataset(400))
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    with (
        Ledger(f"sqlite:///{path}") as ledger,
        pytest.raises(LocalError, match="malformed; `coinml restore PLACE --only ledger`"),
    ):
        ledger.rows("mini")


def test_a_ledger_appears_with_its_tables(tmp_path: Path) -> None:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.datasets()
        names = sorted(one.name for one in tmp_path.iterdir())
    assert names[0] == "ledger.db"
    assert all(one.startswith("ledger.db") for one in names)


def test_opening_a_ledger_at_head_does_not_import_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with Ledger(url) as ledger:
        ledger.register(dataset())
    script = (
        "import sys; from coinml.ledger import Ledger; Ledger(sys.argv[1]).status('mini')\n"
        "heavy = {'alembic', 'torch', 'yt_dlp', 'pandas', 'av', 'mlflow', 'prefect'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, url], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_shared_ledger_notices_that_its_file_was_removed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger.shared(f"sqlite:///{path}")
    assert ledger.register(dataset()) == 6
    for file in tmp_path.iterdir():
        file.unlink()
    again = Ledger.shared(f"sqlite:///{path}")
    assert again is ledger
    assert again.register(dataset()) == 6
    assert path.exists()
    again.close()


def test_writes_survive_a_restart_of_the_server(postgres_server) -> None:
    url = postgres_server.new_database()
    with Ledger(url) as ledger:
        ledger.register(dataset(300))

        def work() -> None:
            for video_id in ids(300):
                ledger.record_success("mini", video_id, file=facts(), attempt=attempt())

        worker = threading.Thread(target=work)
        worker.start()
        postgres_server.stop()
        postgres_server.start()
        worker.join(timeout=120)
        assert not worker.is_alive()
        assert ledger.status("mini").downloaded == 300
        counts = ledger.attempts_in_run("mini", ids(300), run_id="run")
        # At most the write in progress at that moment was recorded twice.
        assert 300 <= sum(sum(count.values()) for count in counts.values()) <= 301


def test_migrating_the_first_version_adds_titles_and_keeps_rows(ledger_url: str) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    config = Config()
    config.set_main_option("script_location", "coinml:ledger/migrations")
    engine = create_engine(ledger_url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO videos (dataset, video_id, label, subset, split, state) "
                "VALUES ('old', 'video000000', 'Boil', 'training', 'train', 'pending')"
            )
        )
    engine.dispose()
    with Ledger(ledger_url) as opened:
        assert opened.row("old", "video000000").title is None
        facts = FileFacts(path="/a.mp4", size_bytes=1, sha256="0" * 64, title="How to boil <eggs>")
        opened.record_success("old", "video000000", file=facts, attempt=None)
        assert opened.row("old", "video000000").title == "How to boil <eggs>"
        # A file found on disk comes without a title and does not delete the recorded one.
        opened.record_success("old", "video000000", file=replace(facts, title=None), attempt=None)
        assert opened.row("old", "video000000").title == "How to boil <eggs>"


class SignalError(BaseException):
    """Raised by a signal handler, as in a flow run that is cancelled."""


def test_a_signal_during_a_statement_is_raised_and_releases_the_lock(ledger_url: str) -> None:
    """And not an error of SQLAlchemy about an invalidated connection."""
    database = Database(ledger_url)
    count = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000) "

    def tell(*_: object) -> None:
        raise SignalError

    def work(connection: Connection) -> None:
        connection.execute(delete(videos))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        connection.exec_driver_sql(f"{count} SELECT max(i) FROM n")

    before = signal.signal(signal.SIGUSR1, tell)
    try:
        for run in (database.write, database.read):
            with pytest.raises(SignalError):
                run(work)
    finally:
        signal.signal(signal.SIGUSR1, before)
    # The next transaction finds no lock.
    assert database.write(lambda connection: connection.execute(delete(videos)).rowcount) == 0
    database.close()


def test_rows_and_attempts_of_the_migration_before_are_kept(ledger_url: str) -> None:
    """Attempts made before sources were recorded have none."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, text

    with Ledger(ledger_url) as ledger:
        ledger.register(dataset())
    engine = create_engine(ledger_url)
    config = Config()
    folder = Path(database.__file__).with_name("migrations")
    config.set_main_option("script_location", str(folder))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0002")
        connection.execute(
            text(
                "INSERT INTO attempts (dataset, video_id, run_id, started_at, seconds, outcome) "
                f"VALUES ('mini', '{ids()[0]}', 'old', 1.0, 2.0, 'gone')"
            )
        )
    engine.dispose()
    with Ledger(ledger_url) as ledger:
        assert [row.video_id for row in ledger.rows("mini")] == ids()
        (old,) = ledger.attempts("mini", ids()[0])
        assert (old.outcome, old.source, old.url) == ("gone", None, None)
        assert set(ledger.last_attempts("mini", ids())[ids()[0]]) == {None}
