"""Unfinished downloads, and the format of the source that each belongs to."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coinml.errors import LocalError
from coinml.runtime.atomic_files import write_whole

# What makes a format another one. The media URL does not: it expires and is made anew.
_FORMAT_FIELDS = (
    "extractor_key",
    "id",
    "format_id",
    "ext",
    "protocol",
    "filesize",
    "vcodec",
    "acodec",
    "width",
    "height",
)


class PartialFile:
    """What has arrived of one video: `<id>.<ext>.part`, fragments, and a note of their format.

    yt-dlp continues any partial file that has the right name, also one of another format, source or
    version of the file, and calls the splice a success. The note, `<id>.partial.json`, is written
    before the first byte, so a partial file without one is of unknown format.

    Args:
        folder: The folder of unfinished files.
        video_id: The video.
    """

    def __init__(self, folder: Path, video_id: str) -> None:
        self._folder = folder
        self._note = folder / f"{video_id}.partial.json"
        # Ids may contain dots, so a prefix is not enough: `a.b.mp4.part` is not of video `a`.
        self._names = re.compile(
            re.escape(video_id)
            + r"\.[A-Za-z0-9]+\.(?:part|ytdl)(?:-Frag\d+(?:\.part)?)?(?:\.ytdl)?"
        )

    @property
    def size_bytes(self) -> int:
        """Number of bytes that have arrived."""
        return sum(path.stat().st_size for path in self._files())

    def belong_to(self, url: str, info: Mapping[str, Any]) -> dict[str, Any]:
        """Drop what belongs to another format than the one that is going to be downloaded.

        Args:
            url: The video's URL at the source.
            info: The format, as yt-dlp describes it.

        Returns:
            What was noted with `note` about the file that is continued; empty for a new one.
        """
        fields = [url, *(info.get(name) for name in _FORMAT_FIELDS)]
        key = hashlib.sha256(json.dumps(fields, default=str).encode()).hexdigest()[:16]
        known = self._read()
        length = known.get("length")
        whole = length if isinstance(length, int) else math.inf
        # The source has nothing to add to a file that is as long as its own, and says 416.
        if known.get("format") == key and 0 < self.size_bytes < whole:
            return known
        self.drop()
        self._write({"format": key})
        return {}

    def note(self, said: Mapping[str, Any]) -> None:
        """Remember what the source says about the version of the file that is arriving."""
        self._write({**self._read(), **said})

    def drop(self) -> None:
        """Delete everything that has arrived.

        Raises:
            LocalError: It cannot be deleted.
        """
        # The note last: what is left after a crash in between is still of the noted format.
        try:
            for path in [*self._files(), self._note]:
                path.unlink(missing_ok=True)
        except OSError as err:
            raise LocalError(f"{self._folder}: {err.strerror}") from err

    def _files(self) -> Iterator[Path]:
        if self._folder.is_dir():
            yield from [path for path in self._folder.iterdir() if self._names.fullmatch(path.name)]

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._note.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write(self, known: Mapping[str, Any]) -> None:
        write_whole(self._note, json.dumps(known), durable=False)
