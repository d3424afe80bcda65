"""Databases for Prefect, MLflow and the ledger on one PostgreSQL server."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlencode

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.addresses import masked, parts_of

SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


@dataclass(frozen=True, slots=True)
class Databases:
    """The URLs of the three databases on a server.

    Attributes:
        server: The server's URL. Its path, if it has one, replaces `coinml` as the prefix of the
            databases' names.
    """

    server: str = field(repr=False)

    @property
    def prefect(self) -> str:
        """URL of Prefect's database, for asyncpg."""
        return self._url("postgresql+asyncpg", "prefect")

    @property
    def mlflow(self) -> str:
        """URL of MLflow's database, for psycopg."""
        return self._url("postgresql+psycopg", "mlflow")

    @property
    def ledger(self) -> str:
        """URL of the ledger's database, for psycopg."""
        return self._url("postgresql+psycopg", "ledger")

    @property
    def names(self) -> tuple[str, str, str]:
        """Names of the three databases."""
        prefix = parts_of(self.server).path.strip("/") or "coinml"
        return (f"{prefix}_prefect", f"{prefix}_mlflow", f"{prefix}_ledger")

    def shown(self) -> str:
        """The server's host and port, without user and password."""
        parts = parts_of(self.server)
        return (parts.hostname or "") + (f":{parts.port}" if parts.port else "")

    def create(self) -> None:
        """Create the databases that do not exist.

        Raises:
            LocalError: The server refuses, or psycopg is not installed.
        """
        try:
            import psycopg
            from psycopg import errors, sql
        except ImportError as err:
            raise LocalError("PostgreSQL needs psycopg: pip install 'coinml[postgres]'") from err
        try:
            with psycopg.connect(self._plain("postgres"), autocommit=True) as connection:
                rows = connection.execute("SELECT datname FROM pg_database").fetchall()
                for name in sorted(set(self.names) - {row[0] for row in rows}):
                    try:
                        connection.execute(
                            sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
                        )
                    except (errors.UniqueViolation, errors.DuplicateDatabase):
                        # Another process created it at this moment.
                        continue
        except psycopg.Error as err:
            # The text names host, port, user and database, and no password.
            raise LocalError(f"PostgreSQL at {self.shown()}: {masked(str(err)).strip()}") from err

    def _url(self, scheme: str, purpose: str) -> str:
        parts = parts_of(self._plain(next(n for n in self.names if n.endswith(purpose))))
        query = dict(parse_qsl(parts.query))
        if scheme.endswith("asyncpg") and "sslmode" in query:
            # asyncpg has another name for this option.
            query["ssl"] = query.pop("sslmode")
        return parts._replace(scheme=scheme, query=urlencode(query)).geturl()

    def _plain(self, database: str) -> str:
        return parts_of(self.server)._replace(scheme="postgresql", path=f"/{database}").geturl()


def checked(url: str) -> str:
    """A PostgreSQL server's URL, unchanged.

    Raises:
        InvalidInputError: It is not such a URL; the message does not repeat it.
    """
    try:
        parts = parts_of(url)
        named = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        named = False
    if not named or parts.scheme not in SCHEMES or "/" in parts.path.strip("/"):
        raise InvalidInputError(
            "--postgres: give a server as postgresql://USER:PASSWORD@HOST:PORT, with /PREFIX "
            "after it to replace the prefix `coinml` of the databases' names"
        )
    return url


def password_of(url: str) -> str | None:
    """The password in a URL, decoded; None if there is none."""
    parts = parts_of(url)
    in_query = dict(parse_qsl(parts.query)).get("password")
    return in_query if parts.password is None else unquote(parts.password)
