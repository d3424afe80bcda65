"""Sessions of yt-dlp, which only this module and `downloader_plugins` import."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.collection.extractor_arguments import parse_extractor_args
from coinml.runtime.addresses import plain

if TYPE_CHECKING:
    from coinml.collection.download import FetchOptions
    from coinml.collection.download_watch import Watch

log = logging.getLogger(__name__)


@contextmanager
def borrowed(options: FetchOptions) -> Iterator[Session]:
    """A session for one download; it is kept for the next one, since creating one is slow.

    One download uses a session at a time, in any thread.
    """
    key = _key(options)
    with _idle_lock:
        idle = _idle.get(key)
        session = idle.pop() if idle else None
    session = session or Session(options)
    try:
        yield session
    finally:
        session.on_data = session.watch = None
        with _idle_lock:
            idle = _idle.setdefault(key, [])
            if session.reusable and len(idle) < _MOST_IDLE:
                idle.append(session)
                session = None
        if session is not None:
            session.close()


class Session:
    """A `YoutubeDL`.

    Attributes:
        on_data: Called once, when the first bytes of a video have arrived.
        watch: Watches the download.
        reusable: Whether another download may use it.
    """

    def __init__(self, options: FetchOptions) -> None:
        # Importing takes a second or two, so only where something is downloaded.
        from yt_dlp import YoutubeDL

        self.on_data: Callable[[], None] | None = None
        self.watch: Watch | None = None
        self.reusable = True
        self._ydl = YoutubeDL(
            {
                **parameters(options),
                "progress_hooks": [self._on_progress],
                "match_filter": self._match,
            }
        )
        # Every request of extractors and downloaders goes through this method.
        self._urlopen = self._ydl.urlopen
        self._ydl.urlopen = self._watched_urlopen

    def download(self, url: str, path: str) -> dict[str, Any]:
        """Download a URL to `path` plus an extension; the result describes the video and file."""
        # "%" begins a field in yt-dlp's templates.
        self._ydl.params["outtmpl"]["default"] = path.replace("%", "%%") + ".%(ext)s"
        info = self._ydl.extract_info(url, download=True) or {}
        if self.watch is not None and self.watch.failure is not None:
            # The extractor went on without what was stopped.
            raise self.watch.failure
        return info

    def close(self) -> None:
        """Close the connections."""
        # Not `YoutubeDL.close`, which writes the cookies back: sessions would overwrite each
        # other's file.
        director = self._ydl.__dict__.pop("_request_director", None)
        if director is not None:
            director.close()

    def _match(self, info: dict[str, Any], *, incomplete: Any = False) -> None:
        if self.watch is not None:
            self.watch.match(info, incomplete=incomplete)

    def _watched_urlopen(self, request: Any) -> Any:
        asked = getattr(request, "headers", {}).get("Range")
        try:
            response = self._urlopen(request)
        except Exception as err:
            # An error page has a body too.
            page = getattr(err, "response", None)
            if self.watch is not None and page is not None:
                self.watch.answered(asked, page)
            raise
        if self.watch is not None:
            self.watch.answered(asked, response)
        return response

    def _on_progress(self, progress: dict[str, Any]) -> None:
        if self.on_data is not None and progress.get("downloaded_bytes"):
            on_data, self.on_data = self.on_data, None
            on_data()


_idle: dict[tuple[FetchOptions, int | None], list[Session]] = {}
_idle_lock = threading.Lock()
_MOST_IDLE = 32


def _key(options: FetchOptions) -> tuple[FetchOptions, int | None]:
    """The key of sessions that can be reused: options, and modification time of the cookies."""
    if options.cookies is None or not options.cookies.exists():
        return options, None
    return options, options.cookies.stat().st_mtime_ns


class _Log:
    """yt-dlp's logger: everything goes to coinml's log at debug level, without secrets."""

    def __init__(self, options: FetchOptions) -> None:
        self._redactor = options.redactor()

    def debug(self, message: str) -> None:
        log.debug("%s", self._redactor.text(message))

    info = warning = error = debug


def parameters(options: FetchOptions) -> dict[str, Any]:
    """What `YoutubeDL` is told."""
    return {
        # Videos of known size first. A direct file has one format, of unknown size and codec.
        "format": "bv*[height>0]/bv*[width>0]/bv*/b",
        "format_sort": [
            # The shorter side: the largest up to the maximum, otherwise the smallest above it.
            f"res:{options.max_height}",
            # H.264 first and AV1, which decord cannot read, last; without sound where possible.
            "vcodec:h264",
            "+hasaud",
        ],
        "logger": _Log(options),
        "quiet": True,
        "noprogress": True,
        "color": {"stdout": "no_color", "stderr": "no_color"},
        "noplaylist": True,
        "playlist_items": "1",
        # The collector retries, so that each failure is classified, rate limited and recorded;
        # only fragments are retried by yt-dlp.
        "retries": 0,
        "extractor_retries": 1,
        "fragment_retries": 3,
        "skip_unavailable_fragments": False,
        "socket_timeout": options.socket_timeout_s,
        "ratelimit": options.rate_limit_bytes,
        "cookiefile": str(options.cookies) if options.cookies else None,
        "proxy": None if options.proxy is None else plain(options.proxy),
        "extractor_args": parse_extractor_args(options.extractor_args or ""),
        "continuedl": True,
        "updatetime": False,
        # No fix-ups by ffmpeg: only the video stream is used. Nor does it download, since `Watch`
        # cannot limit it: no file lies below a file, so yt-dlp finds no ffmpeg.
        "fixup": "never",
        "ffmpeg_location": str(Path(__file__) / "none"),
        "hls_prefer_native": True,
    }
