"""Limits of one download, held while it arrives, and what it may continue."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Never

from coinml.collection.download_limits import Limits
from coinml.collection.partial_file import PartialFile
from coinml.errors import CoinmlError
from coinml.faults.classification import Fault, as_error

STALE = "stale partial"
"""The rule of the failure after which a download begins anew."""

# Those whose bytes all pass `Watch`, in place of a process of ffmpeg.
_PROTOCOLS = frozenset(
    {
        "http",
        "https",
        "m3u8",
        "m3u8_native",
        "http_dash_segments",
        "http_dash_segments_generator",
        "ism",
    }
)
_LIVE = {
    "is_live": "is a live stream",
    "is_upcoming": "is a live stream that has not begun",
    "post_live": "is a live stream that has just ended and is being processed",
}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
_PIECE_BYTES = 1 << 20


class Watch:
    """Watches what arrives for one video, and stops it at a limit.

    Args:
        url: The video's URL at the source.
        partial: What has arrived of it before.
        limits: Its limits.
        deadline: When the time is over, on the monotonic clock.
        on_arrival: Called whenever something arrives.

    Attributes:
        failure: Why it was stopped; an extractor may swallow the exception itself.
    """

    def __init__(
        self,
        url: str,
        partial: PartialFile,
        limits: Limits,
        *,
        deadline: float,
        on_arrival: Callable[[], None] | None = None,
    ) -> None:
        self.failure: CoinmlError | None = None
        self._url = url
        self._partial = partial
        self._limits = limits
        self._deadline = deadline
        self._on_arrival = on_arrival
        self._arrived = 0
        self._known: dict[str, Any] = {}
        self._is_file = False

    def match(self, info: dict[str, Any], *, incomplete: Any = False) -> None:
        """The filter of yt-dlp: called before a format is chosen, and with the chosen one.

        Raises:
            UnavailableError: A live stream, or a format whose download has no limits.
        """
        status = info.get("live_status") or ("is_live" if info.get("is_live") else None)
        if status in _LIVE:
            self._fail(Fault.UNSUPPORTED, f"it {_LIVE[status]}", rule="live")
        if incomplete:
            return
        protocol = info.get("protocol") or "http"
        if protocol not in _PROTOCOLS:
            self._fail(
                Fault.UNSUPPORTED, f"downloads by {protocol!r} have no limits", rule="protocol"
            )
        self._known = self._partial.belong_to(self._url, info)
        self._arrived = self._partial.size_bytes
        self._is_file = protocol in ("http", "https")
        unchanged = _unchanged_if(self._known)
        if self._is_file and unchanged is not None:
            # A source whose file has changed then sends all of it.
            info["http_headers"] = {**(info.get("http_headers") or {}), "If-Range": unchanged}

    def answered(self, range_header: str | None, response: Any) -> None:
        """Called with every response of the source; its body is watched from here on.

        Raises:
            TransientError: It does not continue the partial file.
            UnavailableError: It is too large.
        """
        if self._is_file and response.status in (200, 206):
            self._check_continued(range_header, response)
        response.fp = _Body(response.fp, self)

    def arrived(self, size_bytes: int) -> None:
        """Count bytes that have arrived.

        Raises:
            UnavailableError: Too many.
            TransientError: Too late.
        """
        if self.failure is not None:
            raise self.failure
        self._arrived += size_bytes
        self._check(self._arrived)
        if self._on_arrival is not None:
            self._on_arrival()

    def _check_continued(self, range_header: str | None, response: Any) -> None:
        said = _version(response)
        start = _range_start(range_header)
        if response.status == 206 and start:
            content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range") or "")
            if content_range is None or int(content_range[1]) != start:
                self._fail(Fault.TRANSIENT, "the source sent another part", rule=STALE)
            if any(self._known.get(name, value) != value for name, value in said.items()):
                self._fail(Fault.TRANSIENT, "the source's file has changed", rule=STALE)
            self._arrived = start
        else:
            # All of the file, whatever part was asked for.
            self._arrived = 0
        if isinstance(said.get("length"), int):
            self._check(said["length"])
        if said != {name: self._known.get(name) for name in said}:
            self._known = said
            self._partial.note(said)

    def _check(self, size_bytes: int) -> None:
        try:
            self._limits.check(size_bytes, self._deadline)
        except CoinmlError as err:
            self.failure = err
            raise

    def _fail(self, fault: Fault, message: str, *, rule: str) -> Never:
        self.failure = as_error(fault, message, rule=rule)
        raise self.failure


class _Body:
    """The body of a response, read as it arrives, so that a slow one does not block for long."""

    def __init__(self, file: Any, watch: Watch) -> None:
        self._file = file
        self._watch = watch
        self._error: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, amt: int | None = None, **options: Any) -> bytes:
        self._watch.arrived(0)
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        # `read` waits for all of `amt`, which a server can draw out; `read1` for any bytes.
        read = getattr(self._file, "read1", self._file.read)
        pieces: list[bytes] = []
        left = amt
        while left is None or left > 0:
            try:
                piece = read(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES), **options)
            except Exception as err:
                if amt is None or not pieces:
                    raise
                # What arrived before the connection broke can be continued.
                self._error = err
                break
            if not piece:
                break
            self._watch.arrived(len(piece))
            pieces.append(piece)
            left = None if left is None else left - len(piece)
        return b"".join(pieces)


def _version(response: Any) -> dict[str, Any]:
    """What a response says about the version of the file: length in bytes, etag, date."""
    headers = response.headers
    said = {
        "etag": headers.get("ETag"),
        "last_modified": headers.get("Last-Modified"),
        "length": None,
    }
    if response.status == 206:
        content_range = _CONTENT_RANGE.fullmatch(headers.get("Content-Range") or "")
        total = content_range[2] if content_range is not None else ""
    else:
        total = headers.get("Content-Length") or ""
    if total.isdigit() and not headers.get("Content-Encoding"):
        said["length"] = int(total)
    return {name: value for name, value in said.items() if value is not None}


def _unchanged_if(known: Mapping[str, Any]) -> str | None:
    """The value of If-Range: a strong etag or the date, if the source stated one."""
    etag = known.get("etag")
    if isinstance(etag, str) and not etag.startswith("W/"):
        return etag
    date = known.get("last_modified")
    return date if isinstance(date, str) else None


def _range_start(header: str | None) -> int:
    found = re.match(r"bytes=(\d+)-", header or "")
    return int(found[1]) if found else 0
