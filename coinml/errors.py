"""The exception tree: what went wrong, said in terms of what to do about it.

CoinmlError
  x TransientError      retry this item
  x SourceBlockedError  pause the source
  x UnavailableError    gone, restricted, unsupported: record and go on
  x CorruptVideoError   record, quarantine
  x LocalError          stop the run: this machine is at fault
  x InvalidInputError   (also ValueError) the user's input
  x RegistryError       no such model, alias or version; or the gate said no
"""

from __future__ import annotations


class CoinmlError(Exception):
    """Any failure that coinml understands; its text is fit to be shown as it is."""


class TransientError(CoinmlError):
    """A passing failure of one item: doing the same again may succeed."""


class SourceBlockedError(CoinmlError):
    """The source refuses everyone for now; no single video is to blame.

    Attributes:
        retry_after_s: Seconds the source asked to wait, if it said so.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(CoinmlError):
    """The video cannot be had: it is gone, restricted or in no usable format."""


class CorruptVideoError(CoinmlError):
    """A file is there but does not decode."""


class LocalError(CoinmlError):
    """This machine is at fault (disk full, no permission, tool missing): stop the run."""


class InvalidInputError(CoinmlError, ValueError):
    """The user's input is wrong; the text says what was given, what is allowed, and where."""


class RegistryError(CoinmlError):
    """There is no such model, alias or version, or the promotion gate said no."""
