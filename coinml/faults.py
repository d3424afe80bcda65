"""What a failure means, and what is done about it.

Two things are decided here and nowhere else: the `Fault` that a failure is (`classify`), from
its structure where there is any (the exception's class, the HTTP status, the errno) and from
its text where there is not; and what follows from a fault (`POLICY`).
"""

from __future__ import annotations

import errno
import html
import http
import re
from dataclasses import dataclass
from enum import StrEnum

from coinml.errors import (
    CoinmlError,
    CorruptVideoError,
    LocalError,
    SourceBlockedError,
    TransientError,
    UnavailableError,
)


class Fault(StrEnum):
    """Why a video is not here; the names are part of the ledger and of `status --json`."""

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
    """What is done about a video under one fault.

    Attributes:
        attempts_in_run: How often one run asks for the video under this fault.
        delays_in_run_s: Seconds before the second, third, ... attempt of a run; the last repeats.
        later_s: Seconds before a later run may ask again, after the first run that gave up;
            None: time alone does not bring it back.
        later_factor: By how much that grows with each further failure.
        later_cap_s: Where the growth ends.
        attempts_in_all: After so many attempts under this fault nobody asks again; None: no end.
        returns_with: What else brings it back: "credentials" (cookies or proxy changed),
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
        """Seconds to wait in a run after so many attempts, before jitter."""
        return self.delays_in_run_s[min(max(attempts, 1), len(self.delays_in_run_s)) - 1]

    def delay_later_s(self, failures: int) -> float | None:
        """Seconds until a later run, before jitter; `failures` counts those of this fault."""
        if self.later_s is None or (
            self.attempts_in_all is not None and failures >= self.attempts_in_all
        ):
            return None
        # The exponent is bounded so that a very old row cannot overflow a float.
        return min(self.later_s * self.later_factor ** min(max(failures, 1) - 1, 50),
                   self.later_cap_s)  # fmt: skip


POLICY: dict[Fault, Policy] = {
    Fault.TRANSIENT: Policy(
        attempts_in_run=4,
        delays_in_run_s=(1.0, 4.0, 15.0),
        later_s=15 * _MINUTE_S,
        # `failures` counts attempts, of which a run makes four: this doubles from run to run.
        later_factor=2.0**0.25,
        later_cap_s=_DAY_S,
        attempts_in_all=60,
    ),
    # The pause of the source is the breaker's matter; this is for the one video that alone is
    # refused while the source answers others.
    Fault.BLOCKED: Policy(later_s=_HOUR_S, later_factor=2.0, later_cap_s=2 * _DAY_S),
    Fault.GONE: Policy(later_s=28 * _DAY_S, later_factor=2.0, later_cap_s=180 * _DAY_S),
    Fault.RESTRICTED: Policy(returns_with="credentials"),
    Fault.UNSUPPORTED: Policy(returns_with="downloader"),
    Fault.CORRUPT: Policy(attempts_in_run=2, later_s=_HOUR_S, attempts_in_all=2),
    Fault.LOCAL: Policy(later_s=0.0),
}
"""What is done about each fault."""

JITTER = 0.3
"""Each delay is drawn from [1 - JITTER, 1 + JITTER] times its length."""


def classify(failure: str | BaseException) -> Fault:
    """Say which fault a failure is; what nobody knows is transient.

    Args:
        failure: A message as yt-dlp writes it (colours, progress lines and several lines are
            allowed), or an exception; its causes are looked at too.
    """
    return explain(failure)[0]


def explain(failure: str | BaseException) -> tuple[Fault, str]:
    """Like `classify`, with the name of the rule that spoke ("unknown" when none did)."""
    if isinstance(failure, BaseException):
        for error in chain(failure):
            known = _by_structure(error)
            if known is not None:
                return known
        failure = str(failure)
    return _by_text(failure)


def chain(error: BaseException) -> list[BaseException]:
    """An exception and what it came from, in the ways yt-dlp and Python record that."""
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
    """An error of the kind that a fault calls for, which `explain` will read back."""
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

_LOCAL_ERRNOS = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG,
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EFBIG, errno.EIO, errno.ENOTDIR, errno.EISDIR,
})  # fmt: skip

# By class name, so that knowing them does not mean importing yt-dlp.
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
        # What YouTube says in words outranks the number that it comes with.
        fault, rule = _by_text(str(error))
        return (fault, rule) if rule not in ("unknown", "http") else (_STATUS[status], "http")
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

_RULES: tuple[tuple[str, Fault, str], ...] = (
    # -- this machine: says so by its own name, whatever else the line complains of
    ("os", Fault.LOCAL,
     r"\[errno (?:1|5|12|13|20|21|23|24|27|28|30|36|63|69|78|122)\]|\[winerror (?:3|5|32|39|112|123|206)\]"
     r"|no space left|not enough (?:disk )?space|disk (?:is )?full|quota exceeded.*disk|disk quota"
     r"|permission denied|access is denied|read-only file system|file ?name too long"
     r"|too many open files|cannot allocate memory|out of memory|memoryerror|file too large"
     r"|input/output error|is a directory|not a directory"
     r"|being used by another process|operation not permitted"
     r"|unable to (?:open for writing|create directory|rename file|write (?:data|file))"),
    ("tool", Fault.LOCAL,
     r"ff(?:mpeg|probe)\b.*(?:not found|not installed|could not be found|is required|not available)"
     r"|(?:not found|install|requires?|without).*\bff(?:mpeg|probe)\b"
     r"|: (?:command )?not found$|: command not found|no such file or directory"
     r"|no module named|importerror|modulenotfounderror"
     r"|no supported javascript runtime|no (?:usable )?js runtime"
     r"|(?:unsupported|requires?|deprecated|need) (?:version of )?python|python (?:version )?[\d.]+ (?:or|and) "
     r"|is not recognized as an internal|impersonat\w* target.*not available"
     r"|postprocess\w*: (?!.*http error)|rtmpdump|conversion failed"
     r"|(?:missing|requires?|install).*(?:pycryptodome|secretstorage|curl_cffi|websockets|brotli)"),
    ("cookies", Fault.LOCAL,
     r"dpapi|cookies? database|keyring|could not (?:copy|find|open|read|decrypt|load)\b.*\bcookie"
     r"|(?:failed|unable) to (?:decrypt|load|open|read|copy)\b.*\bcookie|cookie file"
     r"|netscape format|cookieload|secretstorage"),
    ("proxy", Fault.LOCAL,
     r"tunnel connection failed|proxy authentication|proxyerror|unable to connect to proxy"
     r"|cannot connect to proxy|\bproxy\b.*\b(?:40[37]|refused|failed|error|denied)"
     r"|socks(?:4a?|5h?)?\b.*\b(?:error|failed|refused|unsupported)|(?:unsupported|invalid) proxy"),
    ("certificate", Fault.LOCAL,
     r"certificate[_ ]verify[_ ]failed|certificate verify|unable to get local issuer"
     r"|self[- ]signed certificate|certificate has expired"),
    # -- the wire: ahead of "unavailable" and "try again later", which such lines contain
    ("wire", Fault.TRANSIENT,
     r"timed? ?-?out\b|timeout|connection ?(?:was )?(?:aborted|reset|refused|closed|broken|error)"
     r"|reset by peer|broken pipe|remote end closed|remote ?disconnected|connection.*forcibly"
     r"|name resolution|failed to resolve|getaddrinfo|gaierror|nodename nor servname"
     r"|name or service not known|no address associated|could not resolve|temporary failure"
     r"|network is (?:unreachable|down)|no route to host|host is (?:unreachable|down)"
     r"|newconnectionerror|failed to establish a new connection|winerror 100[56]\d|errno 1100\d"
     r"|\berrno (?:100|101|102|103|104|110|111|112|113)\b|max retries exceeded"
     r"|incomplete ?read|bytes read|content too short|downloaded \d+ bytes, expected"
     r"|did not get any data|eof occurred|unexpected eof|wrong version number|decryption failed"
     r"|bad record mac|tlsv1|ssl(?:v3)?[:_ ].*(?:alert|eof|handshake|protocol)|handshake failure"
     r"|bad ?status ?line|invalid chunk|chunked ?encoding|got \d+ bytes|protocolerror"
     r"|urlopen error (?!.*unknown url type)|curl: \((?:6|7|16|18|28|35|52|55|56|92)\)"
     r"|fragment not found|giving up after \d+ (?:fragment )?retries|downloaded file is empty"
     r"|throttle limit|server returned nothing|getting.*data failed"),
    # -- the source is tired of us, in words that name us and not the video
    ("robot", Fault.BLOCKED,
     r"not a (?:ro)?bot\b|captcha|unusual traffic|automated (?:queries|requests|traffic)"
     r"|rate[- ]?limit|too ?many ?(?:requests|attempts|quer)"
     r"|(?:this|your|current) (?:ip|session|account|address|network)\b.{0,40}"
     r"(?:block|ban|limit|flag|throttl|suspicious)"
     r"|\bip\b.{0,30}\b(?:block|ban)|(?:block|ban)\w*.{0,20}\bip\b|suspicious activity"
     r"|(?:content|video) (?:isn'?t|is not) available,? (?:please )?try again later"
     r"|request(?:s)? (?:was |were |has been |have been )?(?:blocked|throttled)|slow down"
     r"|(?<!disk )quota ?exceeded|exceeded.{0,20}quota|latest version of youtube"
     r"|not available on this app|po token.{0,40}(?:required|invalid)|verify (?:that )?you(?:'re| are) (?:a )?human"
     r"|cloudflare|access (?:to this (?:page|site) )?(?:has been |was )?denied|forbidden"),
    # -- a private or closed video asks for a login too, which would not help
    ("private", Fault.GONE,
     r"\bprivate\b(?! network| key)|granted access"),
    # -- it exists, for others than us
    ("place", Fault.RESTRICTED,
     r"\b(?:in|from|for|to|within|outside) (?:(?:your|this|certain|some|the|these|selected|most) )+"
     r"(?:current )?(?:country|countries|region|location|territor|area|state)"
     r"|geo[- _]?(?:restrict|block|graph)|available in (?:your|the following)|country.?restrict"
     r"|(?:only|not) (?:be )?(?:available|viewed|accessible|playable)[^.]{0,30} (?:in|from|outside) "
     r"(?:the )?[a-z]+ only|vpn"),
    ("age", Fault.RESTRICTED,
     r"confirm your age|age[- ]?(?:restrict|gate|limit|verif|check)|verify your age|adult|mature"
     r"|inappropriate for some|(?:18|eighteen)(?:\+| years| or (?:over|older))|nsfw|under ?age"
     r"|viewer discretion|content warning|may be (?:offensive|inappropriate|disturbing)"),
    ("members", Fault.RESTRICTED,
     r"members?[- ]only|\bmembers\b|join this channel|membership|premium|subscri(?:be|ption)"
     r"|purchas|\brent(?:al|ed|s)?\b|\bpa(?:y|id)\b|payment|requires? (?:a )?ticket|buy "
     r"|followers? only|patron"),
    ("login", Fault.RESTRICTED,
     r"(?:sign|log)(?:ged|ging)?[- ]?in\b|login|authenticat|credentials|cookies|unauthorized|registered users"
     r"|account (?:is )?(?:required|needed)|requires? (?:an? )?account|password|restricted"
     r"|(?:organi[sz]ation|administrator|workspace|school)|restricted mode|not authorized|authoriz"),
    ("embed", Fault.RESTRICTED,
     r"(?:playback|embedding).{0,40}(?:disabled|not allowed|disallowed)|other websites"
     r"|watch (?:this video )?on youtube"),
    # -- a status that came with no words of the site's own
    ("http", Fault.TRANSIENT, r""),
    # -- nothing to be had from it with what we run
    ("format", Fault.UNSUPPORTED,
     r"formats?\b.{0,40}(?:not available|unavailable|missing|skipped|not found|cannot be)"
     r"|no (?:video |audio |playable |suitable |usable |downloadable )*(?:formats?|streams?)\b|only images"
     r"|\bdrm\b|widevine|encrypted (?:media|with)|\bsabr\b|not (?:currently )?supported"
     r"|is unsupported|unsupported (?!.*(?:proxy|python))|no suitable (?:extractor|infoextractor)"
     r"|(?:is )?not a valid url|unknown url type|invalid url|forget to quote|truncated|incomplete youtube id"),
    ("live", Fault.UNSUPPORTED,
     r"\blive ?(?:stream|event|broadcast|now)|(?:is|currently) (?:not )?(?:currently )?live\b|will begin"
     r"|premi(?:e)?re|offline|upcoming|has not (?:yet )?(?:started|begun)|not (?:yet )?started"
     r"|scheduled|starts? in|still being processed|is processing|processing (?:this|the) video"
     r"|recording is not available|live.{0,30}(?:ended|not (?:yet )?available)"),
    ("removed", Fault.GONE,
     r"removed|delet(?:ed|ion)|terminat|no longer (?:available|exists?|on)|(?:does|do|did) ?(?:n[o']t) exist"
     r"|doesn't exist|copyright|trademark|infring|violat|taken down|take-?down|dmca|suspended|closed"
     r"|banned|withdrawn|expired|has been (?:disabled|made unavailable)|legal (?:complaint|request)|court"
     r"|nonexistent|non-existent|cannot be found|could not be found|invalid video id|no such video|hate speech"
     r"|community guidelines|terms of (?:service|use)|third[- ]party notification"),
    ("dated", Fault.UNSUPPORTED,
     r"unable to (?:extract|parse|decode|decrypt|find|determine)|(?:could not|cannot|failed to|couldn't) "
     r"(?:extract|parse|identify|decode|decrypt|determine)"
     r"|extraction failed|extractor (?:error|is|has)|nsig|n challenge|signature|challenge|player (?:url|version|code)"
     r"|precondition|page needs to be reloaded|regexnotfound|\bkeyerror\b|typeerror|attributeerror"
     r"|please report this|confirm you are on the latest|latest version of yt|yt-dlp -u|youtube-dl -u"
     r"|out of date|outdated|upgrade|update (?:yt|youtube)|failed to parse json|jsondecode|changed its"),
    ("absent", Fault.GONE,
     r"video (?:is |was )?(?:currently )?(?:unavailable|not available|not found|isn'?t available)"
     r"|(?:content|media|item|page|file|clip) (?:is |was )?(?:unavailable|not available|not found|isn'?t available)"
     r"|unavailable video|this video isn'?t available|not available anymore|^unavailable|: unavailable"),
    # -- vague: it goes by itself
    ("later", Fault.BLOCKED, r"try again (?:later|in)|retry later|come back later"),
    ("vague", Fault.TRANSIENT,
     r"temporar|internal (?:server )?error|server error|something went wrong|backend|try again|incomplete"
     r"|service unavailable|bad gateway|overload|player response|an (?:unknown )?error occurred|reload"),
    ("nothing", Fault.GONE, r"\bnot available\b|\bunavailable\b|not found"),
)  # fmt: skip
"""Ordered by how strong the evidence is; the first that matches speaks."""

_COMPILED = tuple((name, fault, re.compile(text, re.DOTALL)) for name, fault, text in _RULES)
_HTTP = re.compile(
    r"(?:http(?: status)?(?: error)?(?: code)?|status(?: code)?|response(?: code)?|server returned|error code|code)"
    r"[ :=]*\[?([45]\d\d)\b|error:? \[?([45]\d\d)\]?[ :]|<httperror ([45]\d\d)|\b([45]\d\d) (?:client|server) error"
)

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
    # The last thing called an error is the verdict; what stands before it is the way there.
    verdict = text.rpartition("error: ")[2] if "error: " in text else text
    for part in dict.fromkeys((verdict, text)):
        for name, fault, pattern in _COMPILED:
            if name == "http":
                found = _HTTP.search(part)
                status = int(next(filter(None, found.groups()))) if found else 0
                if status in _STATUS:
                    return _STATUS[status], name
            elif pattern.search(part):
                return fault, name
    return Fault.TRANSIENT, "unknown"


def normalise(message: str) -> str:
    """A message without colours, markup, advice, addresses and the whims of typesetting."""
    text = html.unescape(_ANSI.sub("", message)).replace("\r", "\n")
    text = re.sub(r"<(?:a\b[^>]*|/a|br ?/?|b|/b)>", " ", text, flags=re.IGNORECASE)
    text = text.translate(str.maketrans("\u2019\u2018\u201c\u201d\u2013\u2014\u00a0", "''\"\"-- "))
    text = re.sub(r"\s+", " ", text).strip().casefold()
    # Words in an address, an id, yt-dlp's advice ("to pass cookies") or the standard phrase of
    # an HTTP status ("Payment Required") are not about the video.
    for pattern in (_HINTS, _URL, _ITEM, _REASON):
        text = pattern.sub(" ", text)
    return text
