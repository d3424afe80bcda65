"""When an embedding set's parts are written."""

from __future__ import annotations

import logging
import time

from coinml.embedding_sets import EmbeddingSet, VideoRows
from coinml.embedding_sets.parts import load_parquet
from coinml.errors import CoinmlError

logger = logging.getLogger(__name__)

_MIN_WAIT_S = 1.0
_MAX_WAIT_S = 60.0
_WAIT_PER_RUN_SECOND = 0.25


class PartWriter:
    """Collects videos and writes them as parts; a context manager that writes the rest on failure.

    Args:
        embedding_set: The set that is written to.
        part_videos: Largest number of videos per part.

    Attributes:
        seconds: Time spent writing.
        videos: Number of videos written.
    """

    def __init__(self, embedding_set: EmbeddingSet, *, part_videos: int) -> None:
        self._set = embedding_set
        self._part_videos = part_videos
        self._pending: list[VideoRows] = []
        self._started = self._written = time.perf_counter()
        self.seconds = 0.0
        self.videos = 0

    def add(self, video: VideoRows) -> None:
        """Accept a finished video."""
        self._pending.append(video)

    def write_if_due(self) -> None:
        """Write if a part is full, or if some time has passed since the last write.

        That time grows with the run: a kill loses little of what is done, and a long run does not
        end as thousands of small parts.
        """
        now = time.perf_counter()
        wait_s = min(max(_MIN_WAIT_S, _WAIT_PER_RUN_SECOND * (now - self._started)), _MAX_WAIT_S)
        full = len(self._pending) >= self._part_videos
        if full or (self._pending and now - self._written > wait_s):
            self.write()

    def write(self) -> None:
        """Write the pending videos.

        Raises:
            LocalError: The part cannot be written.
        """
        start = time.perf_counter()
        if self._pending:
            self._set.append(self._pending)
        self.videos += len(self._pending)
        self._pending = []
        self._written = time.perf_counter()
        self.seconds += self._written - start

    def __enter__(self) -> PartWriter:
        # Imported before the first part, so that decoders and encoder do not wait for the import.
        load_parquet()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        try:
            self.write()
        except CoinmlError:
            logger.warning("%d embedded videos could not be written", len(self._pending))
