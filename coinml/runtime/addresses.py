"""URLs: without the credentials they may contain, and whether they lead to this machine."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def without_password(url: str) -> str:
    """A URL with its password, if any, replaced by three asterisks."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if not at or ":" not in user:
        return url
    return url.replace(parts.netloc, f"{user.partition(':')[0]}:***@{place}", 1)


def without_user(url: str) -> str:
    """A URL without user and password, for a browser to open."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether a URL's host is this machine, by its name or address."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
