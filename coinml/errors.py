"""The exception tree, ordered by what the caller does about an error.

CoinmlError
  x TransientError      retry this item
  x SourceBlockedError  pause the source
  x UnavailableError    gone, restricted, unsupported: record and continue
  x CorruptVideoError   record, quarantine
  x LocalError          stop the run: this machine is at fault
  x InvalidInputError   (also ValueError) the user's input is wrong
  x RegistryError       a model that does not load, or that the promotion gate cannot judge
    x NoModelError      (also InvalidInputError) the user names a model or version that is not there
"""

from __future__ import annotations


class CoinmlError(Exception):
    """Any failure that coinml recognises; its text can be shown to the user as it is."""


class TransientError(CoinmlError):
    """A temporary failure of one item: a retry may succeed."""


class SourceBlockedError(CoinmlError):
    """The source refuses this client for now; the cause is no single video.

    Attributes:
        retry_after_s: Seconds that the source asked to wait; None where it did not say.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(CoinmlError):
    """The video is gone, restricted or in no usable format."""


class CorruptVideoError(CoinmlError):
    """A video file does not decode."""


class LocalError(CoinmlError):
    """This machine is at fault (disk full, no permission, tool missing): stop the run."""


class InvalidInputError(CoinmlError, ValueError):
    """The user's input is wrong; the text says what was given, what is allowed, and where."""


class RegistryError(CoinmlError):
    """There is no such model, alias or version, it does not load, or no gate can judge it."""


class NoModelError(RegistryError, InvalidInputError):
    """The user names a model, alias or version that the registry does not have."""
