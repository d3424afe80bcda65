"""URLs from outside: their text without the secrets that they may contain, and their parts.

The only module that parses URLs with `urllib.parse` (ruff bans its functions elsewhere), so that
what is printed of a URL is decided here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

_MASK = "***"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s<>]+")
_DATABASES = ("postgres", "mysql", "mariadb", "mssql", "oracle")
_WITH_ACCOUNTS = ("http", *_DATABASES)
"""Schemes whose user info begins with the name of an account; a bucket's begins with a key."""

_NAME = re.compile(r"[A-Za-z][A-Za-z_.-]{0,14}")
"""A user name that may be shown beside a masked password; longer ones or digits may be tokens."""

_PLACEHOLDERS = ("{id}",)
_CREDENTIAL = re.compile(
    r"(?i)(?:^|[_.-])(?:pass(?:word|wd|phrase)?|pwd|token|secret|sig(?:nature)?|auth(?:orization)?"
    r"|credentials?|(?:api|access|secret|private)?_?key|jwt|session(?:id)?|sid)$"
)


class Url(str):
    """A URL from outside, or a local path; a `str` whose text shows no secrets.

    As a string it is the whole URL, so that libraries connect with it. `str`, `repr`, `format` and
    pydantic's dumps show it by `masked`: a message, log or page made of it has no secrets. `plain`
    is its undisguised text.
    """

    __slots__ = ()

    def __new__(cls, url: object) -> Url:
        """The URL; made of another, `str` would take the masked text."""
        return url if isinstance(url, cls) else super().__new__(cls, url)

    def __str__(self) -> str:
        return masked(plain(self))

    def __repr__(self) -> str:
        return repr(str(self))

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(
            cls,
            core_schema.str_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )


def plain(url: str) -> str:
    """The whole text of a URL, with its secrets: for libraries that would print or convert it."""
    return str.__str__(url)


def masked(text: str) -> str:
    """A text in which each URL's user info and query values are asterisks.

    The user name of a server or database stays where a password is masked beside it, so that one
    can tell accounts apart.
    """
    return _URL.sub(lambda found: _masked_url(found[0]), plain(text))


def _masked_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    # A database's password may contain a slash: SQLAlchemy takes all up to the `@`.
    end = len(rest) if scheme.lower().startswith(_DATABASES) else _end_of_authority(rest)
    at = rest.rfind("@", 0, end)
    if at >= 0:
        user, _, password = rest[:at].partition(":")
        account = scheme.lower().startswith(_WITH_ACCOUNTS) and _NAME.fullmatch(unquote(user))
        shown = f"{user}:" if password and account else ""
        rest = f"{shown}{_MASK}@{rest[at + 1 :]}"
    found = re.search(r"[?#]", rest)
    if found is None:
        return f"{scheme}://{rest}"
    place, tail = rest[: found.start()], rest[found.start() :]
    if tail.startswith("?") and "=" not in tail and len(tail) > 1:
        return f"{scheme}://{place}?{_MASK}"
    return f"{scheme}://{place}{re.sub(r'=([^&;#]*)', _masked_value, tail)}"


def _masked_value(found: re.Match[str]) -> str:
    return found[0] if found[1] in ("", *_PLACEHOLDERS) else f"={_MASK}"


def _end_of_authority(rest: str) -> int:
    found = re.search(r"[/?#]", rest)
    return len(rest) if found is None else found.start()


def parts_of(url: str) -> SplitResult:
    """The parts of a URL, each with its secrets.

    Raises:
        ValueError: It is malformed.
    """
    return urlsplit(plain(url))


def credential_in(url: str) -> str | None:
    """The first field of a URL's query that is named like a credential; None if there is none."""
    query = plain(url).partition("?")[2].partition("#")[0]
    pairs = [pair.partition("=") for pair in re.split("[&;]", query)]
    names = [unquote(name) for name, _, value in pairs if value not in _PLACEHOLDERS]
    return next((name for name in names if _CREDENTIAL.search(name)), None)


def without_password(url: str) -> str:
    """A URL with its secrets masked, for messages; see `masked`."""
    return masked(url)


def without_user(url: str) -> str:
    """A URL without user info, for a browser to open."""
    parts = parts_of(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, by its name or address."""
    host = (parts_of(url).hostname or "").rstrip(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
