"""The secret key of a home, by which digests of credentials are made."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from coinml.errors import LocalError
from coinml.runtime.atomic_files import name_first
from coinml.runtime.home import home

_BYTES = 32


def keyed_digest(*parts: bytes) -> str:
    """A digest (16 hex digits) of some secrets that says nothing of them without the home's key.

    Raises:
        LocalError: The key cannot be read or written.
    """
    digest = hmac.new(_key(home() / "data" / "digest.key"), digestmod=hashlib.sha256)
    for part in parts:
        # With the lengths, no other parts have the same content.
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:16]


def _key(path: Path) -> bytes:
    """The key in a file, which is made if there is none; only its owner may read it."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            begun = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            begun.touch(mode=0o600, exist_ok=False)
            try:
                begun.write_bytes(secrets.token_bytes(_BYTES))
                name_first(begun, path)
            finally:
                begun.unlink(missing_ok=True)
        key = path.read_bytes()
    except OSError as err:
        raise LocalError(f"{path}: {err.strerror or err}") from err
    if len(key) != _BYTES:
        raise LocalError(f"{path}: has {len(key)} bytes and not {_BYTES}; remove it for a new one")
    return key
