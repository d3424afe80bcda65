"""A PostgreSQL server for tests, on loopback and in a temporary folder."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import uuid
from pathlib import Path
from urllib.parse import quote


class PostgresServer:
    """A PostgreSQL server in a temporary folder, on a free port of loopback.

    Its one user is `coinml`; without a password, all connections are trusted.
    """

    def __init__(self, folder: Path, *, programs: Path, password: str | None = None) -> None:
        self.folder = folder
        self.password = password
        self._programs = programs
        # initdb refuses to run as root.
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as_user = [
                "setpriv",
                f"--reuid={user.pw_uid}",
                f"--regid={user.pw_gid}",
                "--clear-groups",
            ]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        method = ["-A", "trust"]
        if password is not None:
            secret = folder / "password"
            secret.write_text(password)
            method = ["-A", "scram-sha-256", f"--pwfile={secret}"]
        self._run("initdb", "-D", str(folder / "data"), "-U", "coinml", "-N", *method)

    @property
    def address(self) -> str:
        """The server's URL without a database, as `coinml up --postgres` takes it."""
        secret = "" if self.password is None else f":{quote(self.password, safe='')}"
        return f"postgresql://coinml{secret}@127.0.0.1:{self.port}"

    def start(self) -> None:
        options = f"-p {self.port} -h 127.0.0.1 -k {self.folder} -F"
        self._run(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-w",
            "-l",
            str(self.folder / "log"),
            "-o",
            options,
            "start",
        )

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-w", "-m", "immediate", "stop")

    def new_database(self) -> str:
        """The SQLAlchemy URL of an empty database."""
        import psycopg

        name = f"test_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(f"{self.address}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"{self.address}/{name}".replace("postgresql:", "postgresql+psycopg:")

    def _run(self, *command: str) -> None:
        program, *arguments = command
        subprocess.run(
            [*self._as_user, str(self._programs / program), *arguments],
            check=True,
            cwd="/",
            stdout=subprocess.DEVNULL,
            timeout=120,
        )
