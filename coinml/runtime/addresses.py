"""URLs without the credentials they may contain."""

from __future__ import annotations

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
