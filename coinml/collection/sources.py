"""Where videos come from: URL templates, folders and buckets of copies."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from coinml.collection.download import check_id, source_url
from coinml.collection.pacing import source_name
from coinml.errors import InvalidInputError
from coinml.runtime.addresses import credential_in, is_loopback, parts_of
from coinml.runtime.settings import YOUTUBE

BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "hf")
"""Schemes of object stores, whose drivers connect only when a file is opened."""

ALLOWED = (
    "allowed are an http(s) URL that contains {id}, e.g. https://www.youtube.com/watch?v={id}, "
    "a folder or file of copies with an absolute path, e.g. /copies or /copies/{id}.mp4, "
    f"and a bucket, e.g. s3://bucket/copies/{{id}}.mp4 (of {', '.join(BUCKETS)})"
)

_LONGEST_NAME = 200
_DRIVERS = frozenset({*BUCKETS, "memory"})
_BRACE = re.compile(r"\{[^{}/?&;#\s]{0,20}\}|[{}]")
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_SECRET = re.compile(r"([?&;][^=&;#]+=)([^&;#]*)")
_PLACEHOLDER = re.compile(r"\{\w{0,20}\}")


@dataclass(frozen=True, slots=True)
class Source:
    """One place that may have a dataset's videos.

    Attributes:
        template: A URL or path with `{id}`, or a folder or bucket of files named by their ids.
    """

    template: str

    @property
    def is_web(self) -> bool:
        """Whether yt-dlp downloads from it; otherwise it holds copies."""
        return self.scheme in ("http", "https")

    @property
    def is_local(self) -> bool:
        """Whether it is a folder or a server of this machine, which needs no rate limit."""
        return self.is_folder or (self.is_web and is_loopback(self.template))

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.scheme in ("", "file")

    @property
    def name(self) -> str:
        """What it is called in the ledger; sources of one name share a pace and a breaker.

        The host (and port) of a URL without "www.", a folder, or a bucket.
        """
        if self.is_web:
            return source_name(self.template)
        name = self.place.partition("{id}")[0].rstrip("/") if self.is_folder else self._bucket
        if len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            name = f"{name[: _LONGEST_NAME - 13]}~{digest}"
        return name

    @property
    def place(self) -> str:
        """The path of a folder, else the template."""
        if not self.is_folder:
            return self.template
        if self.scheme == "file":
            return unquote(parts_of(self.template.replace("{id}", "%7Bid%7D")).path)
        return str(Path(self.template).expanduser())

    @property
    def folder(self) -> Path:
        """The folder that holds the files, or the folders of files, of a source on this machine."""
        before, id_, _ = self.place.partition("{id}")
        return Path(before.rpartition("/")[0] or "/") if id_ else Path(before)

    def url(self, video_id: str) -> str:
        """The URL or path of a video, to fetch it.

        Raises:
            InvalidInputError: The id does not have the form of the source's ids.
        """
        if self.is_web:
            return source_url(self.template, video_id)
        check_id(video_id, self.name)
        if "{id}" in self.place:
            return self.place.replace("{id}", video_id)
        return f"{self.place.rstrip('/')}/{video_id}"

    def shown(self, video_id: str) -> str:
        """The URL or path of a video without the values of its query that may be secret."""
        return (self if self.is_folder else Source(_masked(self.template))).url(video_id)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of its query that may be secret."""
        pairs = _SECRET.findall(self.template)
        return tuple(value for _, value in pairs if "{id}" not in value and len(value) >= 8)

    @property
    def scheme(self) -> str:
        """What comes before `://`, in lower case; "" for a path."""
        match = _SCHEME.match(self.template)
        return match[1].casefold() if match else ""

    @property
    def _bucket(self) -> str:
        parts = parts_of(self.template)
        return f"{parts.scheme}://{parts.netloc}"


def asked_sources(templates: Sequence[str], *, is_mini: bool) -> set[str]:
    """Names of the sources that a collection asks; none where they are not known beforehand.

    Args:
        templates: The sources that are set; none: YouTube.
        is_mini: Whether it collects the miniature, whose source is there only during a run.
    """
    chosen = templates or (() if is_mini else (YOUTUBE,))
    return {source.name for source in as_sources(chosen)} if chosen else set()


def as_sources(given: str | Sequence[str]) -> tuple[Source, ...]:
    """The sources of a list, in its order, each once.

    Raises:
        InvalidInputError: One of another form, or with user and password, which are not shown.
    """
    templates = [given] if isinstance(given, str) else list(given)
    check_no_user(templates)
    if not templates:
        raise InvalidInputError(f"no source: {ALLOWED}")
    sources = tuple(Source(template) for template in dict.fromkeys(templates))
    for source in sources:
        _check_form(source)
        _check_driver(source)
    return sources


def check_folders(templates: Sequence[str]) -> None:
    """Refuse sources of another form, and folders that are not on this machine.

    Nothing is connected to.

    Raises:
        InvalidInputError: As `as_sources`, or there is no such folder, which is named.
    """
    for source in as_sources(templates) if templates else ():
        # `os.path` takes any text; `Path.is_dir` raises for a name that is too long.
        if source.is_folder and not os.path.isdir(source.folder):  # noqa: PTH112
            raise InvalidInputError(
                f"source {source.template!r}: there is no folder {source.folder}"
            )


def check_recordable(templates: Sequence[str]) -> None:
    """Refuse sources that may not be a recorded parameter of a run.

    Raises:
        InvalidInputError: One has a user name, a password or a credential; it is not shown.
    """
    check_no_user(templates)
    for number, template in enumerate(templates, start=1):
        if credential := credential_in(template):
            raise InvalidInputError(
                f"source {number} of {len(templates)} has the query field {credential!r} (its "
                "value is not shown): the source of a run is recorded where others read it, so it "
                "cannot hold a credential; give the site's cookies (COINML_COOKIES)"
            )


def check_no_user(templates: Sequence[str]) -> None:
    """Refuse sources that contain a user name or a password.

    Raises:
        InvalidInputError: One does; it is not shown.
    """
    for number, template in enumerate(templates, start=1):
        if _SCHEME.match(template) and "@" in re.split(r"[/?#]", template.partition("://")[2])[0]:
            raise InvalidInputError(
                f"source {number} of {len(templates)} contains a user name or a password (not "
                "shown): leave it out of the URL, which is recorded as a parameter; give the "
                "site's cookies (COINML_COOKIES), and a bucket's keys as its driver reads them "
                "(for s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials)"
            )


def _check_form(source: Source) -> None:
    shown = _masked(source.template)
    try:
        parts = parts_of(source.template)
        host, _ = parts.netloc, parts.port
    except ValueError:
        host = ""
    if source.is_web:
        why = "" if host and "{id}" in source.template else "it has no host or no {id}"
    elif source.is_folder:
        why = _wrong_path(source, host)
    elif source.scheme in _DRIVERS:
        why = "" if host else "it names no bucket"
    else:
        why = f"{source.scheme}:// is not supported"
    # A slash is in no placeholder, so of `{{id}}` a brace is named.
    if (brace := _BRACE.search(source.template.replace("{id}", "/"))) is not None:
        # What is in a masked value is not named.
        named = _BRACE.search(shown.replace("{id}", "/"))
        raise InvalidInputError(
            f"source {shown!r}: {named[0] if named else brace[0][0]!r} is not allowed: the only "
            "placeholder is {id}; in a URL (file:///... for a folder) write %7B and %7D for braces"
        )
    if why:
        raise InvalidInputError(f"source {shown!r}: {why}: {ALLOWED}")


def _wrong_path(source: Source, host: str) -> str:
    if source.scheme == "file" and host not in ("", "localhost"):
        return f"{host!r} is read as a host; a file URL has three slashes, as file:///copies"
    try:
        return "" if Path(source.place).is_absolute() else "it is not an absolute path"
    except RuntimeError:
        return "there is no such user"


def _check_driver(source: Source) -> None:
    if source.is_web or source.is_folder:
        return
    import fsspec

    shown = _masked(source.template)
    try:
        fsspec.get_filesystem_class(source.scheme)
    except ValueError as err:
        text = f"source {shown!r}: no driver for {source.scheme}:// is installed"
        raise InvalidInputError(text) from err
    except ImportError as err:
        hint = "; pip install 'coinml[s3]'" if source.scheme in ("s3", "s3a") else ""
        raise InvalidInputError(f"source {shown!r}: {err}{hint}") from err


def _masked(template: str) -> str:
    def value(pair: re.Match[str]) -> str:
        shown = "{id}" in pair[2] or _PLACEHOLDER.fullmatch(pair[2])
        return pair[0] if shown else f"{pair[1]}***"

    return _SECRET.sub(value, template)
