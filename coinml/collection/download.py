"""One video from the source to a file: the only importer of yt_dlp.

What comes back is a temporary file that nobody has looked into yet, or one of coinml's errors,
each of which carries its fault for `coinml.faults.classification.explain`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from coinml.collection.redaction import Redactor
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.errors import CoinmlError, InvalidInputError
from coinml.faults.classification import Fault, as_error, chain, explain

log = logging.getLogger(__name__)

MAX_HEIGHT = 360
"""Rows of the picture at most, by default; VideoMAE looks at 224 of them."""

_YOUTUBE_HOSTS = frozenset({"youtube.com", "m.youtube.com", "youtu.be", "youtube-nocookie.com"})
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_LONGEST_TITLE = 300
# No dot at the front, no slash, nothing that a shell, a URL or a file system reads otherwise.
_ANY_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """How videos are fetched.

    Attributes:
        max_height: Rows of the picture at most.
        cookies: Netscape cookies file.
        proxy: Proxy URL; never shown.
        rate_limit_bytes: Bytes a second at most.
        socket_timeout_s: Seconds of silence until a connection is given up.
    """

    max_height: int = MAX_HEIGHT
    cookies: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    rate_limit_bytes: int | None = None
    socket_timeout_s: float = 20.0

    def credentials(self) -> str | None:
        """A digest of cookies and proxy that tells others from these; None without either.

        Raises:
            InvalidInputError: They are not what they should be; neither is shown.
        """
        if self.cookies is None and self.proxy is None:
            return None
        digest = hashlib.sha256((self.proxy or "").encode())
        if self.proxy is not None:
            _check_proxy(self.proxy)
        if self.cookies is not None:
            digest.update(_check_cookies(self.cookies))
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a download brought.

    Attributes:
        path: The file, which nobody has looked into yet.
        title: What the source calls the video, in one line; None where it does not say.
    """

    path: Path
    title: str | None


def fetch(
    video_id: str,
    url: str,
    folder: Path,
    *,
    options: FetchOptions | None = None,
    on_data: Callable[[], None] | None = None,
) -> Fetched:
    """Download one video to `folder/<id>.<ext>`, going on from a partial file left there.

    A 403 gets one fresh extraction: the addresses of media files grow stale.

    Args:
        video_id: Becomes the file's name; check it with `source_url` first.
        url: What to download.
        folder: For files in the making; not where finished ones live.
        options: See `FetchOptions`.
        on_data: Called once, as soon as the first bytes of the video have come.

    Raises:
        TransientError, SourceBlockedError, UnavailableError, CorruptVideoError, LocalError:
            As the failure's fault says.
    """
    options = options or FetchOptions()
    try:
        return _fetch(video_id, url, folder, options, on_data)
    except CoinmlError as err:
        if http_status(err) != 403:
            raise
        log.debug("%s: 403; extracting anew", video_id)
    return _fetch(video_id, url, folder, options, on_data)


def source_url(template: str, video_id: str) -> str:
    """Put an id into a URL template, if it is fit to be in one.

    Raises:
        InvalidInputError: The template has no `{id}` or is no http(s) URL, or the id is not
            of the form that the source uses.
    """
    parts = urlsplit(template)
    if "{id}" not in template or parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInputError(
            f"source {template!r}: an http(s) URL with {{id}} in it is wanted, "
            "e.g. https://www.youtube.com/watch?v={id}"
        )
    host = (parts.hostname or "").removeprefix("www.")
    pattern = _YOUTUBE_ID if host in _YOUTUBE_HOSTS else _ANY_ID
    if not pattern.fullmatch(video_id):
        raise InvalidInputError(f"video id {video_id!r}: {pattern.pattern} is wanted at {host}")
    return template.replace("{id}", quote(video_id, safe=""))


def _check_proxy(proxy: str) -> None:
    # What a broken address leads to would be blamed on each video.
    parts = urlsplit(proxy if "//" in proxy else f"http://{proxy}")
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
    """The content of a cookies file, of which yt-dlp would print the lines that are none."""
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
                "(seven fields with tabs between them)"
            )
    return content


def http_status(err: BaseException) -> int | None:
    """The HTTP status behind a failure, if there was one."""
    for one in chain(err):
        status = getattr(one, "status", None)
        if isinstance(status, int):
            return status
    return None


def is_unreachable(err: BaseException) -> bool:
    """Whether a failure is that nobody could be spoken to: no name, no route, no listener."""
    return any(
        type(one).__name__ in ("NewConnectionError", "NameResolutionError", "gaierror")
        or (isinstance(one, OSError) and one.errno in _NOBODY_THERE)
        for one in chain(err)
    )


_NOBODY_THERE = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ENETUNREACH,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
    }
)


class _Session:
    """A YoutubeDL, which costs more to make than most of what it then does.

    One fetch has it at a time; it is kept for the next one, whichever thread that runs in.
    """

    def __init__(self, options: FetchOptions) -> None:
        # Costs a second or two, so only where something is fetched.
        from yt_dlp import YoutubeDL

        self.on_data: Callable[[], None] | None = None
        self.ydl = YoutubeDL({**_parameters(options), "progress_hooks": [self._on_progress]})

    def close(self) -> None:
        # Not the YoutubeDL's own `close`, which writes the cookies back: sessions would
        # overwrite each other's file.
        director = self.ydl.__dict__.pop("_request_director", None)
        if director is not None:
            director.close()

    def _on_progress(self, progress: dict[str, Any]) -> None:
        if self.on_data is not None and progress.get("downloaded_bytes"):
            on_data, self.on_data = self.on_data, None
            on_data()


_idle: dict[tuple[FetchOptions, int | None], list[_Session]] = {}
_idle_lock = threading.Lock()
_MOST_IDLE = 32


def _key(options: FetchOptions) -> tuple[FetchOptions, int | None]:
    """What a session is good for: the same options, and the same cookies in their file."""
    if options.cookies is None or not options.cookies.exists():
        return options, None
    return options, options.cookies.stat().st_mtime_ns


class _Log:
    """Where yt-dlp talks to: nothing of it reaches the terminal."""

    def __init__(self, options: FetchOptions) -> None:
        self._redactor = Redactor(options.proxy)

    def debug(self, message: str) -> None:
        log.debug("%s", self._redactor.text(message))

    info = warning = error = debug


def _fetch(
    video_id: str,
    url: str,
    folder: Path,
    options: FetchOptions,
    on_data: Callable[[], None] | None,
) -> Fetched:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise as_error(Fault.LOCAL, f"{folder}: {err.strerror}", rule="errno") from err
    key = _key(options)
    session: _Session | None = None
    try:
        with _idle_lock:
            idle = _idle.get(key)
            session = idle.pop() if idle else None
        session = session or _Session(options)
        session.on_data = on_data
        # "%" begins a field in yt-dlp's templates; an absolute path cannot become an option.
        name = str(folder.resolve() / video_id).replace("%", "%%")
        session.ydl.params["outtmpl"]["default"] = name + ".%(ext)s"
        info = session.ydl.extract_info(url, download=True)
    except Exception as err:
        # Everything: what an extractor stumbles over is that video's failure, not the run's.
        failure = _translated(err, url, options)
        if http_status(err) == 403 and session is not None:
            # The refusal may hang on what this session has of the source: it is used no more.
            session.close()
            session = None
        raise failure from err
    finally:
        if session is not None:
            session.on_data = None
            with _idle_lock:
                idle = _idle.setdefault(key, [])
                if len(idle) < _MOST_IDLE:
                    idle.append(session)
    path = _file_of(info, video_id, folder)
    return Fetched(path=path, title=_title_of(info, path))


def _file_of(info: Any, video_id: str, folder: Path) -> Path:
    # yt-dlp calls it a success too when a filter or an archive kept it from fetching anything.
    entries = (info or {}).get("requested_downloads") or [{}]
    path = Path(entries[0].get("filepath") or folder / video_id)
    if not path.is_file() or path.parent.resolve() != folder.resolve():
        raise as_error(Fault.UNSUPPORTED, f"{video_id}: no file came", rule="no file")
    return path


def _title_of(info: dict[str, Any], path: Path) -> str | None:
    """The title, unless yt-dlp made it of the address, as it does for plain files."""
    words = "".join(c if c.isprintable() else " " for c in str(info.get("title") or "")).split()
    title = " ".join(words)[:_LONGEST_TITLE]
    return None if title in ("", path.stem, info.get("id")) else title


def _parameters(options: FetchOptions) -> dict[str, Any]:
    return {
        "format": _format(options.max_height),
        "logger": _Log(options),
        "quiet": True,
        "noprogress": True,
        "color": {"stdout": "no_color", "stderr": "no_color"},
        "noplaylist": True,
        "playlist_items": "1",
        # Each failure is ours to judge, to pace and to record; a piece of a fragmented video
        # is too small for that.
        "retries": 0,
        "extractor_retries": 1,
        "fragment_retries": 3,
        "skip_unavailable_fragments": False,
        "socket_timeout": options.socket_timeout_s,
        "ratelimit": options.rate_limit_bytes,
        "cookiefile": str(options.cookies) if options.cookies else None,
        "proxy": options.proxy,
        "continuedl": True,
        "updatetime": False,
        # The video stream alone is taken, which needs no repair by ffmpeg.
        "fixup": "never",
    }


def _format(max_height: int) -> str:
    low = f"[height<={max_height}]"
    # H.264 first and AV1 last (decord cannot read it), without sound where that can be had.
    return "/".join(
        [
            f"bv{low}[vcodec^=avc1]",
            f"b{low}[vcodec^=avc1]",
            f"bv{low}[vcodec!^=av01]",
            f"b{low}",
            f"bv{low}",
            "wv[vcodec^=avc1]",
            "b",
        ]
    )


def _translated(err: Exception, url: str, options: FetchOptions) -> CoinmlError:
    redactor = Redactor(options.proxy)
    message = redactor.text(_brief(str(err)) or type(err).__name__)
    fault, rule = explain(err)
    redactor.error(err)
    kinds = {type(one).__name__ for one in chain(err)}
    if "UnsupportedError" in kinds and urlsplit(url).path.endswith(VIDEO_ENDINGS):
        # A page where a file should be: a portal or a proxy spoke, not the video's owner.
        return as_error(Fault.CORRUPT, "a web page came in place of the video", rule="web page")
    return as_error(fault, message, rule=rule, retry_after_s=_retry_after_s(err))


def _brief(message: str) -> str:
    """yt-dlp's words without its marks, and without the cause that it says twice."""
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
