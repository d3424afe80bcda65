"""The proxy that the environment names (`HTTP_PROXY` and the like), and what goes around it.

Requests to this machine never go through a proxy: behind it, 127.0.0.1 is another machine. The
command, its servers and its workers set `NO_PROXY` for that when they start. Where coinml is
imported as a library, the environment stays as it is, except that the client of an MLflow server on
this machine needs the same setting (`coinml.tracking.mlflow_store`).

httpx, requests and urllib read `NO_PROXY` differently, so the value is rewritten to entries that
mean the same to each:

- `[::1]` and IPv6 networks make httpx refuse every request, and requests and urllib ignore the
  latter;
- only commas separate entries, and only a value of `*` alone means everything to all of them.
"""

from __future__ import annotations

import ipaddress
import os
import re

from coinml.errors import InvalidInputError
from coinml.runtime.addresses import parts_of

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LOWER = ("http_proxy", "https_proxy", "all_proxy")
VARIABLES = (*_LOWER, *(name.upper() for name in _LOWER))
"""Names of the variables that name a proxy."""

_SCHEMES = ("http", "https", "socks5", "socks5h")
_ENTRY = re.compile(r"(?:\w+://)?[^\s:/\[\]]+(?::\d+)?(?:/\d+)?")


def named_proxies() -> dict[str, str]:
    """The proxies that count, by the variable that names each."""
    found = {}
    for lower in _LOWER:
        # An empty lower-case variable hides the upper-case one.
        name = lower if lower in os.environ else lower.upper()
        if os.environ.get(name):
            found[name] = os.environ[name]
    return found


def loopback_direct(*hosts: str) -> dict[str, str]:
    """The variables that keep requests to this machine from the proxy; none without a proxy.

    Args:
        hosts: More hosts that are reached directly.
    """
    if not named_proxies():
        return {}
    given = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or "").strip()
    if given != "*":
        entries = [_readable(entry) for entry in re.split(r"[\s,]+", given)]
        given = ",".join(dict.fromkeys([*filter(None, entries), *LOOPBACK, *hosts]))
    return {"no_proxy": given, "NO_PROXY": given}


def keep_loopback_direct(*hosts: str) -> None:
    """Set these variables in this process, for it and its children."""
    os.environ.update(loopback_direct(*hosts))


def check_proxies() -> None:
    """Check that HTTP clients can read the proxies; httpx reads all of them before any request.

    Raises:
        InvalidInputError: One of them is malformed or of an unknown kind; no credentials are shown.
    """
    for name, value in named_proxies().items():
        if shown_proxy(value) is None:
            raise InvalidInputError(
                f"{name}: not an address like http://user:password@host:3128 that HTTP clients "
                f"take (of {', '.join(_SCHEMES)})"
            )


def shown_proxy(value: str) -> str | None:
    """A proxy's address with its credentials masked; None if it is malformed."""
    try:
        parts = parts_of(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or parts.scheme not in _SCHEMES or re.search(r"\s", value):
        return None
    place = f"[{host}]" if ":" in host else host
    return (
        f"{parts.scheme}://{'***@' if '@' in parts.netloc else ''}{place}"
        f"{'' if port is None else f':{port}'}"
    )


def _readable(entry: str) -> str | None:
    """An entry of NO_PROXY in the form that every client reads; None if httpx cannot."""
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::\d+)?", entry)
    entry = bracketed[1] if bracketed else entry
    try:
        return str(ipaddress.IPv6Address(entry))
    except ValueError:
        return entry if _ENTRY.fullmatch(entry) else None
