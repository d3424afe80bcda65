"""When an embedding set's parts are written."""

from __future__ import annotations

import logging
import time

from coinml.embedding_sets import EmbeddingSet, VideoRows
from coinml.embedding_sets.parts import load_parquet
from coinml.errors import CoinmlError

logger = logging.getLogger(__name__)

_FIRST_PART_S = 1.0
_LAST_PART_S = 60.0
_PART_GROWTH = 0.25


class PartWriter:
    """Writes parts when it is time; a context manager that writes the rest if its block fails.

    Args:
        embedding_set: Where they go.
        part_videos: Greatest number of videos a part.

    Attributes:
        seconds: Time spent writing.
        videos: Number of videos written.
    """

    def __init__(self, embedding_set: EmbeddingSet, *, part_videos: int) -> None:
        self._set = embedding_set
        self._most = part_videos
        self._ready: list[VideoRows] = []
        self._started = self._written = time.perf_counter()
        self.seconds = 0.0
        self.videos = 0

    def add(self, video: VideoRows) -> None:
        """Accept a finished video."""
        self._ready.append(video)

    def write_if_due(self) -> None:
        """Write when there is enough, or when what there is has waited long.

        The wait grows with the run: a kill costs little compared with what is done, and a long
        run does not end as thousands of small parts.
        """
        now = time.perf_counter()
        patience_s = min(max(_FIRST_PART_S, _PART_GROWTH * (now - self._started)), _LAST_PART_S)
        if len(self._ready) >= self._most or (self._ready and now - self._written > patience_s):
            self.write()

    def write(self) -> None:
        """Write what there is.

        Raises:
            LocalError: It cannot be written.
        """
        start = time.perf_counter()
        if self._ready:
            self._set.append(self._ready)
        self.videos += len(self._ready)
        self._ready = []
        self._written = time.perf_counter()
        self.seconds += self._written - start

    def __enter__(self) -> PartWriter:
        # Loaded now, and not at the first part, when the decoders and the encoder would wait.
        load_parquet()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        try:
            self.write()
        except CoinmlError:
            logger.warning("%d embedded videos could not be written", len(self._ready))
