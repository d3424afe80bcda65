"""What unit tests share: databases for the ledger, MLflow stores, and two trained heads.

For the ledger it is SQLite always, and a PostgreSQL server of our own where there is one.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kitchen import Material, Trained

    from coinml.tracking import Store


class PostgresServer:
    """A PostgreSQL server in a temporary folder, on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # initdb refuses to run as root.
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as_user = [
                "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
            ]  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", str(folder / "data"), "-U", "coinml", "-A", "trust", "-N")

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -F"
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l",
                  str(self.folder / "log"), "-o", options, "start")  # fmt: skip

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def new_database(self) -> str:
        import psycopg

        name = f"test_{uuid.uuid4().hex[:8]}"
        address = f"postgresql://coinml@127.0.0.1:{self.port}"
        with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"{address}/{name}".replace("postgresql:", "postgresql+psycopg:")

    def _run(self, *command: str) -> None:
        subprocess.run(
            [*self._as_user, *command], check=True, cwd="/", stdout=subprocess.DEVNULL,
            timeout=120,
        )  # fmt: skip


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    if not (shutil.which("initdb") and shutil.which("pg_ctl")):
        pytest.skip("no PostgreSQL here: initdb and pg_ctl are not on the PATH")
    pytest.importorskip("psycopg", reason="pip install 'coinml[postgres]'")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv")
    # Not below pytest's own folder, which the user postgres may not enter.
    folder = Path(tempfile.mkdtemp(prefix="coinml-pg-"))
    server = PostgresServer(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables, on each kind of server that the ledger supports."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.new_database()


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without content; to copy it takes a hundredth of the making."""
    from coinml.tracking import Store

    folder = tmp_path_factory.mktemp("mlflow")
    store = Store(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder)
    store.client().search_experiments()
    return folder / "mlflow.db"


@pytest.fixture(scope="session")
def new_store(migrated_database: Path) -> Callable[[Path], Store]:
    """A function that makes an MLflow store in a folder."""
    from coinml.tracking import Store

    def make(folder: Path) -> Store:
        shutil.copyfile(migrated_database, folder / "mlflow.db")
        return Store(uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_root=folder / "mlartifacts")

    return make


@pytest.fixture
def store(new_store: Callable[[Path], Store], tmp_path: Path) -> Store:
    """An MLflow store without runs."""
    return new_store(tmp_path)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory, tiny_encoder_dir: Path) -> Material:
    """27 real videos of three classes with their embeddings."""
    from kitchen import make_material

    return make_material(tmp_path_factory.mktemp("material"), tiny_encoder_dir)


@pytest.fixture(scope="session")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    new_store: Callable[[Path], Store],
    material: Material,
) -> Trained:
    """Both heads trained on the material and one of them the champion."""
    from kitchen import train_both

    home = tmp_path_factory.mktemp("home")
    return train_both(home, new_store(home), material)
