"""Removing secrets, such as the proxy's address, from messages and exceptions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from coinml.runtime.addresses import parts_of

MASK = "***"

_SHORT = 6
"""A secret with fewer characters may occur within words: only whole words are masked."""


class Redactor:
    """Replaces the parts of a proxy URL and other secrets in texts by asterisks.

    Args:
        proxy: The URL, if any.
        secrets: Others.
    """

    def __init__(self, proxy: str | None, secrets: Iterable[str] = ()) -> None:
        parts = parts_of(proxy if proxy and "//" in proxy else f"//{proxy or ''}")
        user, _, place = parts.netloc.rpartition("@")
        found = {proxy, parts.netloc, user, place, parts.hostname, parts.username, parts.password}
        found |= {unquote(secret) for secret in found if secret}
        found |= set(secrets)
        patterns = [
            rf"(?<!\w){re.escape(secret)}(?!\w)" if len(secret) < _SHORT else re.escape(secret)
            for secret in sorted(filter(None, found), key=len, reverse=True)
        ]
        self._pattern = re.compile("|".join(patterns), re.IGNORECASE) if patterns else None

    def text(self, message: str) -> str:
        """A redacted text."""
        return message if self._pattern is None else self._pattern.sub(MASK, message)

    def error(self, error: BaseException) -> None:
        """Redact an exception and its causes in place, since a logged traceback shows them.

        Classes and numbers stay: the fault is classified by them.
        """
        if self._pattern is None:
            return
        seen: set[int] = set()
        queue: list[object] = [error]
        while queue:
            one = queue.pop()
            if not isinstance(one, BaseException) or id(one) in seen:
                continue
            seen.add(id(one))
            queue += [one.__cause__, one.__context__, *one.args, *vars(one).values()]
            info = getattr(one, "exc_info", None)
            queue += list(info) if isinstance(info, tuple) else []
            one.args = tuple(self._masked(value) for value in one.args)
            vars(one).update({name: self._masked(value) for name, value in vars(one).items()})

    def _masked(self, value: object) -> object:
        return self.text(value) if isinstance(value, str) else value
