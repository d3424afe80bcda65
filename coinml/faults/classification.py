"""Classifying failures into faults, and the retry policy of each fault.

`classify` finds the `Fault` of a failure from its structure where there is any (exception class,
HTTP status, errno), otherwise from its text. `POLICY` says what follows from a fault.
"""

from __future__ import annotations

import errno
import html
import http
import re
from dataclasses import dataclass, replace
from enum import StrEnum

from coinml.errors import (
    CoinmlError,
    CorruptVideoError,
    LocalError,
    SourceBlockedError,
    TransientError,
    UnavailableError,
)
from coinml.faults.rules import COMPILED, HTTP, STATUS


class Fault(StrEnum):
    """Why a video is not downloaded; the ledger and `status --json` contain these names."""

    TRANSIENT = "transient"
    BLOCKED = "blocked"
    GONE = "gone"
    RESTRICTED = "restricted"
    UNSUPPORTED = "unsupported"
    CORRUPT = "corrupt"
    LOCAL = "local"


_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a video that failed with one fault is tried again.

    Attributes:
        attempts_in_run: Attempts at the video in one run.
        delays_in_run_s: Seconds before the second, third, ... attempt of a run; the last repeats.
        later_s: Seconds until a later run may try again, after the first run that gave up;
            None: no time is set (see `returns_with`).
        later_factor: Growth of that delay with each further failure.
        later_cap_s: Upper limit of that delay.
        attempts_in_all: Attempts with this fault over all runs; None: no limit.
        returns_with: What else makes the video due: "credentials" (cookies or proxy changed),
            "downloader" (yt-dlp was upgraded), or None.
    """

    attempts_in_run: int = 1
    delays_in_run_s: tuple[float, ...] = (1.0,)
    later_s: float | None = None
    later_factor: float = 1.0
    later_cap_s: float = 30 * _DAY_S
    attempts_in_all: int | None = None
    returns_with: str | None = None

    def delay_in_run_s(self, attempts: int) -> float:
        """Seconds to wait within a run after this many attempts, before jitter."""
        return self.delays_in_run_s[min(max(attempts, 1), len(self.delays_in_run_s)) - 1]

    def delay_later_s(self, failures: int) -> float | None:
        """Seconds until a later run may try again after `failures` of this fault, before jitter.

        None: no time is set (see `returns_with`).
        """
        if self.later_s is None or (
            self.attempts_in_all is not None and failures >= self.attempts_in_all
        ):
            return None
        # The exponent is bounded so that a very old row cannot overflow a float.
        return min(
            self.later_s * self.later_factor ** min(max(failures, 1) - 1, 50), self.later_cap_s
        )

    @property
    def longest_s(self) -> float:
        """The longest time until an attempt that it can ask for, with jitter, in seconds."""
        grows = self.later_s is not None and self.later_factor > 1
        later_s = self.later_cap_s if grows else (self.later_s or 0.0)
        return (1 + JITTER) * max(later_s, *self.delays_in_run_s)


POLICY: dict[Fault, Policy] = {
    Fault.TRANSIENT: Policy(
        attempts_in_run=4,
        delays_in_run_s=(1.0, 4.0, 15.0),
        later_s=15 * _MINUTE_S,
        # `failures` counts attempts, and a run makes four, so the delay doubles per run.
        later_factor=2.0**0.25,
        later_cap_s=_DAY_S,
        attempts_in_all=60,
    ),
    # For a video that is refused while the source answers others; a source that refuses all is
    # paused by the circuit breaker (`collection.pacing`).
    Fault.BLOCKED: Policy(later_s=_HOUR_S, later_factor=2.0, later_cap_s=2 * _DAY_S),
    Fault.GONE: Policy(later_s=28 * _DAY_S, later_factor=2.0, later_cap_s=180 * _DAY_S),
    Fault.RESTRICTED: Policy(returns_with="credentials"),
    Fault.UNSUPPORTED: Policy(returns_with="downloader"),
    Fault.CORRUPT: Policy(attempts_in_run=2, later_s=_HOUR_S, attempts_in_all=2),
    Fault.LOCAL: Policy(later_s=0.0),
}
"""The retry policy of each fault."""

RULE_POLICY: dict[str, Policy] = {
    # A live stream becomes a video, without a newer yt-dlp.
    "live": replace(
        POLICY[Fault.UNSUPPORTED], later_s=_DAY_S, later_factor=2.0, later_cap_s=28 * _DAY_S
    ),
    # It took all the time that a video of its length may take.
    "too slow": replace(POLICY[Fault.TRANSIENT], attempts_in_run=1),
}
"""The retry policy where a rule says more than the fault."""

JITTER = 0.3
"""Each delay is multiplied by a random factor from [1 - JITTER, 1 + JITTER]."""


def policy_of(fault: Fault, rule: str | None) -> Policy:
    """The retry policy of a failure."""
    return RULE_POLICY.get(rule or "", POLICY[fault])


def longest_wait_s(fault: Fault) -> float:
    """The longest time until a video with a fault is due again, in seconds."""
    rules = {name for name, of, _ in COMPILED if of == fault}
    special = [policy for rule, policy in RULE_POLICY.items() if rule in rules]
    return max(policy.longest_s for policy in (POLICY[fault], *special))


def classify(failure: str | BaseException) -> Fault:
    """The fault of a failure; an unknown failure is transient.

    Args:
        failure: A message as yt-dlp writes it (colours, progress lines and several lines are
            allowed), or an exception, whose causes count too.
    """
    return explain(failure)[0]


def explain(failure: str | BaseException) -> tuple[Fault, str]:
    """The fault, and the name of the rule that matched ("unknown" when none did)."""
    if isinstance(failure, BaseException):
        for error in chain(failure):
            known = _by_structure(error)
            if known is not None:
                return known
        failure = str(failure)
    return _by_text(failure)


def chain(error: BaseException) -> list[BaseException]:
    """An exception and its causes, as yt-dlp and Python record them."""
    found: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        one = queue.pop(0)
        if isinstance(one, BaseException) and not any(one is other for other in found):
            found.append(one)
            info = getattr(one, "exc_info", None)
            queue += [info[1] if isinstance(info, tuple) and len(info) == 3 else None]
            queue += [getattr(one, "cause", None), one.__cause__]
            queue += [arg for arg in one.args if isinstance(arg, BaseException)]
    return found


def as_error(
    fault: Fault, message: str, *, rule: str, retry_after_s: float | None = None
) -> CoinmlError:
    """The error of the class that belongs to a fault; `explain` returns its fault and rule."""
    error: CoinmlError
    if fault is Fault.BLOCKED:
        error = SourceBlockedError(message, retry_after_s=retry_after_s)
    else:
        error = _ERRORS.get(fault, UnavailableError)(message)
    vars(error).update(fault=fault, rule=rule)
    return error


_ERRORS: dict[Fault, type[CoinmlError]] = {
    Fault.TRANSIENT: TransientError,
    Fault.CORRUPT: CorruptVideoError,
    Fault.LOCAL: LocalError,
}

_LOCAL_ERRNOS = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EFBIG,
        errno.EIO,
        errno.ENOTDIR,
        errno.EISDIR,
    }
)

# By name, so that yt-dlp need not be imported.
_CLASSES: dict[str, Fault] = {
    "GeoRestrictedError": Fault.RESTRICTED,
    "UserNotLive": Fault.UNSUPPORTED,
    "UnsupportedError": Fault.UNSUPPORTED,
    "ProxyError": Fault.LOCAL,
    "CertificateVerifyError": Fault.LOCAL,
    "CookieLoadError": Fault.LOCAL,
    "PostProcessingError": Fault.LOCAL,
    "MemoryError": Fault.LOCAL,
    "ContentTooShortError": Fault.TRANSIENT,
    "ThrottledDownload": Fault.TRANSIENT,
    "IncompleteRead": Fault.TRANSIENT,
}

_OWN: dict[type[CoinmlError], Fault] = {kind: fault for fault, kind in _ERRORS.items()} | {
    SourceBlockedError: Fault.BLOCKED
}


def _by_structure(error: BaseException) -> tuple[Fault, str] | None:
    fault = getattr(error, "fault", None)
    if isinstance(fault, Fault):
        return fault, str(getattr(error, "rule", "own"))
    for kind, own in _OWN.items():
        if isinstance(error, kind):
            return own, "own"
    if isinstance(error, OSError) and error.errno in _LOCAL_ERRNOS:
        return Fault.LOCAL, "errno"
    status = getattr(error, "status", None)
    if isinstance(status, int) and status in _STATUS:
        # YouTube's message outranks the status that it comes with.
        fault, rule = _by_text(str(error))
        return (fault, rule) if rule not in ("unknown", HTTP) else (_STATUS[status], HTTP)
    for parent in type(error).__mro__:
        if parent.__name__ in _CLASSES:
            return _CLASSES[parent.__name__], "class"
    return None


_STATUS: dict[int, Fault] = {
    400: Fault.UNSUPPORTED,
    401: Fault.RESTRICTED,
    402: Fault.BLOCKED,
    403: Fault.BLOCKED,
    404: Fault.GONE,
    407: Fault.LOCAL,
    408: Fault.TRANSIENT,
    410: Fault.GONE,
    416: Fault.TRANSIENT,
    425: Fault.TRANSIENT,
    429: Fault.BLOCKED,
    451: Fault.RESTRICTED,
} | dict.fromkeys(range(500, 600), Fault.TRANSIENT)

_LONGEST_MESSAGE = 6000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_HINTS = re.compile(
    r"use --cookies-from-browser or --cookies for the authentication.*"
    r"|use --username and --password.*?(?:\.|$)"
    r"|also see +https?://\S+.*"
    r"|for tips on (?:how to )?effectively export.*"
    r"|it is recommended to use `-t sleep`.*",
    re.DOTALL,
)
_URL = re.compile(r"https?://\S+")
_ITEM = re.compile(r"\[[\w:+.]+\] (?!http\b)[^\s:]+: ")
_REASON = re.compile(
    r"(?<=\b[45]\d\d: )(?:"
    + "|".join(re.escape(status.phrase.casefold()) for status in http.HTTPStatus)
    + ")"
)


def _by_text(message: str) -> tuple[Fault, str]:
    text = normalise(message)
    # The last "error: " begins the verdict; progress and warnings come before it.
    verdict = text.rpartition("error: ")[2] if "error: " in text else text
    for part in dict.fromkeys((verdict, text)):
        for name, fault, pattern in COMPILED:
            if pattern is None:
                found = STATUS.search(part)
                status = int(next(filter(None, found.groups()))) if found else 0
                if status in _STATUS:
                    return _STATUS[status], name
            elif pattern.search(part):
                return Fault(fault), name
    return Fault.TRANSIENT, "unknown"


def normalise(message: str) -> str:
    """A message as the rules match it.

    Lower case, on one line, with straight quotes, without colours, markup, advice and URLs.
    """
    # A message can be a whole log: the verdict is at its end, and the search must stay fast.
    text = html.unescape(_ANSI.sub("", message[-_LONGEST_MESSAGE:])).replace("\r", "\n")
    text = re.sub(r"<(?:a\b[^>]*|/a|br ?/?|b|/b)>", " ", text, flags=re.IGNORECASE)
    text = text.translate(str.maketrans("\u2019\u2018\u201c\u201d\u2013\u2014\u00a0", "''\"\"-- "))
    text = re.sub(r"\s+", " ", text).strip().casefold()
    # Words in a URL, an id, yt-dlp's advice ("to pass cookies") or the standard phrase of an HTTP
    # status ("Payment Required") are not about the video.
    for pattern in (_HINTS, _URL, _ITEM, _REASON):
        text = pattern.sub(" ", text)
    return text
