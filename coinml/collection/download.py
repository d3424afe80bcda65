"""Downloading one video.

The result is a temporary, unverified file, or one of coinml's errors, each of which carries its
fault for `coinml.faults.classification.explain`.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from coinml.collection.download_limits import Limits
from coinml.collection.download_watch import STALE, Watch
from coinml.collection.downloader_session import borrowed
from coinml.collection.extractor_arguments import parse_extractor_args, secrets_of
from coinml.collection.partial_file import PartialFile
from coinml.collection.redaction import Redactor
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.errors import CoinmlError, InvalidInputError, UnavailableError
from coinml.faults.classification import Fault, as_error, chain, explain
from coinml.runtime.addresses import is_loopback, masked, parts_of, plain
from coinml.runtime.home_key import keyed_digest

log = logging.getLogger(__name__)

MAX_HEIGHT = 360
"""Default maximum of a video's shorter side in pixels; VideoMAE's input has 224."""

MAX_MB_PER_S = 4.0
"""Default maximum of a file's megabytes per second of its length: more than a phone records."""

MAX_MINUTES = 10.0
"""Default maximum of a download's minutes, beside ten times the video's length."""

_YOUTUBE_HOSTS = frozenset({"youtube.com", "m.youtube.com", "youtu.be", "youtube-nocookie.com"})
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_LONGEST_TITLE = 300
# No leading dot, no slash, no character that is special in a shell, a URL or a file system.
_ANY_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """How videos are downloaded.

    Attributes:
        max_height: Maximum length of the video's shorter side in pixels: the height, unless the
            video is upright.
        cookies: Netscape cookies file.
        proxy: Proxy URL; never shown. None takes the one that the environment names, except to this
            machine; "" takes none.
        secrets: What else is masked in messages, such as a token in the source's URL.
        extractor_args: Arguments for yt-dlp's extractors; never shown (`parse_extractor_args`).
        rate_limit_bytes: Maximum bytes per second.
        socket_timeout_s: Seconds without data until a connection is closed.
        max_mb_per_s: Maximum size of a file in megabytes for each second of its annotated length,
            beside `download_limits.SIZE_FLOOR_BYTES`.
        max_minutes: Maximum time of a download in minutes, beside ten times its annotated length.
    """

    max_height: int = MAX_HEIGHT
    cookies: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    extractor_args: str | None = field(default=None, repr=False)
    rate_limit_bytes: int | None = None
    socket_timeout_s: float = 20.0
    max_mb_per_s: float = MAX_MB_PER_S
    max_minutes: float = MAX_MINUTES

    def __post_init__(self) -> None:
        for name in ("max_mb_per_s", "max_minutes"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InvalidInputError(f"{name} must be finite and positive, not {value!r}")

    def limits(self, duration_s: float | None) -> Limits:
        """How much may arrive for a video of this annotated length, and how long that may take."""
        return Limits.of(
            duration_s,
            max_mb_per_s=self.max_mb_per_s,
            max_minutes=self.max_minutes,
            rate_limit_bytes=self.rate_limit_bytes,
        )

    def credentials(self) -> str | None:
        """A digest (16 hex digits) of cookies and proxy, keyed by this home; None without either.

        Raises:
            InvalidInputError: The cookies file, the proxy or the extractor arguments are
                malformed; none of them is shown.
        """
        # Not part of the digest: tokens change often and open no private video.
        parse_extractor_args(self.extractor_args or "")
        if self.cookies is None and self.proxy is None:
            return None
        if self.proxy is not None:
            _check_proxy(self.proxy)
        cookies = b"" if self.cookies is None else _check_cookies(self.cookies)
        return keyed_digest(plain(self.proxy or "").encode(), cookies)

    def redactor(self) -> Redactor:
        """Removes the proxy, values of extractor arguments and other secrets from texts."""
        arguments = parse_extractor_args(self.extractor_args or "")
        return Redactor(self.proxy, [*self.secrets, *secrets_of(arguments)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A downloaded file.

    Attributes:
        path: The file, not verified yet.
        title: The video's title at the source, in one line; None where there is none.
        url: Where it was found, if that is not the URL asked for.
    """

    path: Path
    title: str | None
    url: str | None = None


def fetch(
    video_id: str,
    url: str,
    folder: Path,
    *,
    options: FetchOptions | None = None,
    duration_s: float | None = None,
    on_data: Callable[[], None] | None = None,
    on_arrival: Callable[[], None] | None = None,
) -> Fetched:
    """Download one video to `folder/<id>.<ext>`, resuming a partial file of the same format.

    After a 403 the media URL is extracted once more, since such URLs expire. A partial file that
    the source cannot continue (416, another part, a changed file) is dropped, and the download
    begins anew, once.

    Args:
        video_id: Becomes the file's name; check it with `source_url` first.
        url: The URL of the video or its page.
        folder: For unfinished files; not the folder of finished ones.
        options: See `FetchOptions`.
        duration_s: The annotated length in seconds, which limits size and time.
        on_data: Called once, when the first bytes of the video have arrived.
        on_arrival: Called whenever something has arrived.

    Raises:
        TransientError, SourceBlockedError, UnavailableError, CorruptVideoError, LocalError:
            According to the failure's fault.
    """
    options = options or FetchOptions()
    if options.proxy is None and is_loopback(url):
        # Otherwise yt-dlp takes the proxy that the environment names.
        options = replace(options, proxy="")
    limits = options.limits(duration_s)
    partial = PartialFile(folder, video_id)
    deadline = time.monotonic() + limits.time_s

    def attempt() -> Fetched:
        watch = Watch(url, partial, limits, deadline=deadline, on_arrival=on_arrival)
        return _fetch(video_id, url, folder, options, on_data, watch)

    try:
        try:
            fetched = attempt()
        except CoinmlError as err:
            if http_status(err) == 416 or explain(err)[1] == STALE:
                log.debug("%s: %s; dropping the partial file", video_id, err)
                partial.drop()
            elif http_status(err) != 403:
                raise
            # After a 403 the media URL is extracted again.
            fetched = attempt()
    except UnavailableError:
        partial.drop()
        raise
    partial.drop()
    return fetched


def source_url(template: str, video_id: str) -> str:
    """Insert an id into a URL template.

    Raises:
        InvalidInputError: The template has no `{id}` or is no http(s) URL, or the id does not
            have the form of the source's ids.
    """
    parts = parts_of(template)
    if "{id}" not in template or parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInputError(
            f"source {masked(template)!r}: expected an http(s) URL that contains {{id}}, "
            "e.g. https://www.youtube.com/watch?v={id}"
        )
    check_id(video_id, (parts.hostname or "").removeprefix("www."))
    return template.replace("{id}", quote(video_id, safe=""))


def check_id(video_id: str, host: str) -> None:
    """Check an id before it becomes a part of a URL or path.

    Raises:
        InvalidInputError: It does not have the form of this host's ids.
    """
    pattern = _YOUTUBE_ID if host in _YOUTUBE_HOSTS else _ANY_ID
    if not pattern.fullmatch(video_id):
        raise InvalidInputError(f"video id {video_id!r}: ids of {host} match {pattern.pattern}")


def _check_proxy(proxy: str) -> None:
    # Checked once, in advance: yt-dlp's errors about a bad proxy would be recorded for each video.
    parts = parts_of(proxy if "//" in proxy else f"http://{proxy}")
    try:
        fine = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or parts.scheme not in _PROXY_SCHEMES:
        raise InvalidInputError(
            f"the proxy is not an address like http://user:password@host:3128 "
            f"(of {', '.join(_PROXY_SCHEMES)})"
        )


_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


def _check_cookies(path: Path) -> bytes:
    """The content of a cookies file; checked here, since yt-dlp prints malformed lines."""
    try:
        content = path.read_bytes()
    except OSError as err:
        raise InvalidInputError(f"cookies file {path}: {err.strerror}") from err
    for number, line in enumerate(content.decode(errors="replace").splitlines(), start=1):
        fields = line.removeprefix("#HttpOnly_").split("\t")
        if (line.startswith("#") and not line.startswith("#HttpOnly_")) or not line.strip():
            continue
        if len(fields) != 7 or not re.fullmatch(r"(?:\d+(?:\.\d+)?)?", fields[4]):
            raise InvalidInputError(
                f"cookies file {path}, line {number}: not a line of a Netscape cookies file "
                "(seven fields separated by tabs)"
            )
    return content


def http_status(err: BaseException) -> int | None:
    """The HTTP status of a failure, if there was one."""
    for one in chain(err):
        status = getattr(one, "status", None)
        if isinstance(status, int):
            return status
    return None


def is_unreachable(err: BaseException) -> bool:
    """Whether no connection was made: no such host name, no route, connection refused."""
    return any(
        getattr(one, "rule", None) == UNREACHABLE
        or type(one).__name__ in ("NewConnectionError", "NameResolutionError", "gaierror")
        or (isinstance(one, OSError) and one.errno in _UNREACHABLE)
        for one in chain(err)
    )


UNREACHABLE = "unreachable"
"""The rule of failures that say that a source cannot be reached."""

_UNREACHABLE = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
    }
)


def _fetch(
    video_id: str,
    url: str,
    folder: Path,
    options: FetchOptions,
    on_data: Callable[[], None] | None,
    watch: Watch,
) -> Fetched:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise as_error(Fault.LOCAL, f"{folder}: {err.strerror}", rule="errno") from err
    # An absolute path cannot look like an option.
    path = str(folder.resolve() / video_id)
    try:
        with borrowed(options) as session:
            session.on_data, session.watch = on_data, watch
            try:
                info = session.download(url, path)
            except Exception as err:
                # A refusal may depend on the session's cookies.
                session.reusable = http_status(err) != 403
                raise
    except Exception as err:
        # Any exception: an extractor's bug is a failure of the video, not of the run.
        raise _translated(watch.failure or err, url, options) from err
    file = _file_of(info, video_id, folder)
    return Fetched(path=file, title=_title_of(info, file))


def _file_of(info: Mapping[str, Any], video_id: str, folder: Path) -> Path:
    # yt-dlp also succeeds without a file, when a filter or an archive excludes the video.
    entries = info.get("requested_downloads") or [{}]
    path = Path(entries[0].get("filepath") or folder / video_id)
    if not path.is_file() or path.parent.resolve() != folder.resolve():
        raise as_error(Fault.UNSUPPORTED, f"{video_id}: no file came", rule="no file")
    return path


def _title_of(info: Mapping[str, Any], path: Path) -> str | None:
    """The title, unless yt-dlp derived it from the URL, as it does for plain files."""
    words = "".join(c if c.isprintable() else " " for c in str(info.get("title") or "")).split()
    title = " ".join(words)[:_LONGEST_TITLE]
    return None if title in ("", path.stem, info.get("id")) else title


def _translated(err: Exception, url: str, options: FetchOptions) -> CoinmlError:
    redactor = options.redactor()
    message = redactor.text(_brief(str(err)) or type(err).__name__)
    fault, rule = explain(err)
    redactor.error(err)
    kinds = {type(one).__name__ for one in chain(err)}
    if "UnsupportedError" in kinds and parts_of(url).path.endswith(VIDEO_ENDINGS):
        # A page instead of a file: from a captive portal or a proxy, not from the source.
        return as_error(Fault.CORRUPT, "a web page came in place of the video", rule="web page")
    if fault is Fault.LOCAL and "ffmpeg could not be found" in message:
        # Only ffmpeg could download it, which sessions are told not to use.
        return as_error(Fault.UNSUPPORTED, "downloads by ffmpeg have no limits", rule="protocol")
    return as_error(fault, message, rule=rule, retry_after_s=_retry_after_s(err))


def _brief(message: str) -> str:
    """yt-dlp's message without "ERROR: " and without the repeated cause."""
    message = re.sub(r" \(caused by .*\)$", "", message, flags=re.DOTALL)
    return message.replace("\r", "").removeprefix("ERROR: ").strip()


def _retry_after_s(err: BaseException) -> float | None:
    for one in chain(err):
        headers = getattr(getattr(one, "response", None), "headers", None)
        value = headers.get("Retry-After") if headers is not None else None
        if value is None:
            continue
        try:
            return max(0.0, float(value))
        except ValueError:
            try:
                return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
            except ValueError:
                continue
    return None
