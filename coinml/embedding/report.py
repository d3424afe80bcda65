"""What a run of the engine did and where its time went."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from coinml.embedding.part_writer import PartWriter
from coinml.errors import CoinmlError, CorruptVideoError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Takes the number of videos that are through (done before, embedded or failed) and of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """What a run of the engine did and where its time went.

    Attributes:
        embedded: Number of jobs embedded now.
        skipped: Number of jobs that were in the set before.
        failed: Reason by video id, for videos that could not be embedded.
        broken: The ids among them whose file does not decode; such a file is to be put aside.
        clips: Number of clips embedded; equal ones of a short video are encoded once.
        frames_substituted: Number of frames whose neighbour stands in.
        decoders: Number of jobs that each decoder decoded.
        decode_wait_s: Seconds that the encoder had nothing to do (where it has several lanes,
            the part of them that was idle).
        encode_s: Seconds that it was at work.
        write_s: Seconds spent writing parts.
        seconds: All of it, from the call to the return.
    """

    embedded: int
    skipped: int
    failed: Mapping[str, str]
    broken: tuple[str, ...]
    clips: int
    frames_substituted: int
    decoders: Mapping[str, int]
    decode_wait_s: float
    encode_s: float
    write_s: float
    seconds: float

    @property
    def bottleneck(self) -> Literal["decode", "encode", "write", "none"]:
        """What took the largest part of the time; `none` where nothing was to do."""
        parts: list[tuple[float, Literal["decode", "encode", "write"]]] = [
            (self.decode_wait_s, "decode"),
            (self.encode_s, "encode"),
            (self.write_s, "write"),
        ]
        return max(parts)[1] if self.clips else "none"


class Tally:
    """Counts for the report."""

    def __init__(
        self, skipped: int, total: int, writer: PartWriter, progress: Progress | None
    ) -> None:
        self._started = time.perf_counter()
        self._skipped = skipped
        self._total = total
        self._writer = writer
        self._progress = progress
        self._told = -1
        self._failed: dict[str, dict[str, None]] = {}
        self._failed_jobs = 0
        self._broken: list[str] = []
        self._idle_s = 0.0
        self._busy_s = 0.0
        self.clips = 0
        self.substituted = 0
        self.decoders: Counter[str] = Counter()

    def tell(self) -> None:
        """Report progress: what is on record or never will be."""
        through = self._skipped + self._writer.videos + self._failed_jobs
        if self._progress is not None and through != self._told:
            self._told = through
            self._progress(through, self._total)

    def fail(self, video_id: str, error: CoinmlError) -> None:
        """Note that a video cannot be embedded."""
        logger.info("%s is not embedded: %s", video_id, error)
        self._failed_jobs += 1
        # Of a video with several extents all reasons are told, each once.
        self._failed.setdefault(video_id, {})[str(error)] = None
        if isinstance(error, CorruptVideoError) and video_id not in self._broken:
            self._broken.append(video_id)

    def waited(self, wait: Callable[[], None], *, busy: float) -> None:
        """Run `wait` and book its time by the part of the lanes that was busy."""
        start = time.perf_counter()
        wait()
        seconds = time.perf_counter() - start
        self._busy_s += busy * seconds
        self._idle_s += (1 - busy) * seconds

    def report(self) -> EmbedReport:
        """What it comes to by now."""
        return EmbedReport(
            embedded=self._writer.videos,
            skipped=self._skipped,
            failed={key: "; ".join(reasons) for key, reasons in self._failed.items()},
            broken=tuple(self._broken),
            clips=self.clips,
            frames_substituted=self.substituted,
            decoders=dict(self.decoders),
            decode_wait_s=self._idle_s,
            encode_s=self._busy_s,
            write_s=self._writer.seconds,
            seconds=time.perf_counter() - self._started,
        )
