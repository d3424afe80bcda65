"""Counts and times of a run of the embedding engine, during the run and as its report."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from coinml.embedding.part_writer import PartWriter
from coinml.errors import CoinmlError, CorruptVideoError
from coinml.media import SampledClips

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Takes the number of finished videos (skipped, embedded or failed) and the number of all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReport:
    """Counts and times of a finished run of the engine.

    Attributes:
        embedded: Number of jobs embedded by this run.
        skipped: Number of jobs that were in the set before.
        failed: Reason by video id, for videos that could not be embedded.
        broken: Ids of the failed videos whose file does not decode, to be quarantined.
        clips: Number of clips embedded; equal clips of a short video are encoded once.
        frames_substituted: Number of undecodable frames that a neighbour replaced.
        decoders: Number of jobs by the decoder that decoded them.
        decode_wait_s: Seconds that the encoder was idle (with several encoding threads: seconds
            times the share of them that was idle).
        encode_s: Seconds that the encoder was busy, likewise.
        write_s: Seconds spent writing parts.
        seconds: Wall time of the run.
        kernel: How the encoder was computed on a CPU, and what was measured of each way.
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
    kernel: str = ""

    @property
    def bottleneck(self) -> Literal["decode", "encode", "write", "none"]:
        """What took most of the time; `none` if no clip was embedded."""
        parts: list[tuple[float, Literal["decode", "encode", "write"]]] = [
            (self.decode_wait_s, "decode"),
            (self.encode_s, "encode"),
            (self.write_s, "write"),
        ]
        return max(parts)[1] if self.clips else "none"


class RunStatistics:
    """Counts and times of a running engine, and its progress.

    Args:
        skipped: Number of jobs that were in the set before.
        total: Number of all jobs.
        writer: Counts the videos that are written.
        progress: Called whenever the number of finished videos changes.

    Attributes:
        clips: Number of clips embedded.
        frames_substituted: Number of undecodable frames that a neighbour replaced.
        decoders: Number of jobs by the decoder that decoded them.
    """

    def __init__(
        self, skipped: int, total: int, writer: PartWriter, progress: Progress | None
    ) -> None:
        self._started = time.perf_counter()
        self._skipped = skipped
        self._total = total
        self._writer = writer
        self._progress = progress
        self._reported = -1
        self._failed: dict[str, dict[str, None]] = {}
        self._failed_jobs = 0
        self._broken: list[str] = []
        self._idle_s = 0.0
        self._busy_s = 0.0
        self.clips = 0
        self.frames_substituted = 0
        self.decoders: Counter[str] = Counter()

    def report_progress(self) -> None:
        """Report the number of videos that are skipped, written or failed, if it has changed."""
        finished = self._skipped + self._writer.videos + self._failed_jobs
        if self._progress is not None and finished != self._reported:
            self._reported = finished
            self._progress(finished, self._total)

    def add_failure(self, video_id: str, error: CoinmlError) -> None:
        """Record that a video cannot be embedded."""
        logger.info("%s is not embedded: %s", video_id, error)
        self._failed_jobs += 1
        # The extents of one video may fail for different reasons; equal reasons are kept once.
        self._failed.setdefault(video_id, {})[str(error)] = None
        if isinstance(error, CorruptVideoError) and video_id not in self._broken:
            self._broken.append(video_id)

    def add_encoded(self, clips: SampledClips) -> None:
        """Count a video that is encoded; its clips as they were decoded, without the frames."""
        self.clips += len(clips.timestamps_s)
        self.frames_substituted += clips.frames_substituted
        self.decoders[clips.decoder] += 1

    def time_wait(self, wait: Callable[[], None], *, utilization: float) -> None:
        """Run `wait` and count its time as busy and idle by the encoder's utilization, 0 to 1."""
        start = time.perf_counter()
        wait()
        seconds = time.perf_counter() - start
        self._busy_s += utilization * seconds
        self._idle_s += (1 - utilization) * seconds

    def report(self) -> EmbedReport:
        """The report up to now."""
        return EmbedReport(
            embedded=self._writer.videos,
            skipped=self._skipped,
            failed={key: "; ".join(reasons) for key, reasons in self._failed.items()},
            broken=tuple(self._broken),
            clips=self.clips,
            frames_substituted=self.frames_substituted,
            decoders=dict(self.decoders),
            decode_wait_s=self._idle_s,
            encode_s=self._busy_s,
            write_s=self._writer.seconds,
            seconds=time.perf_counter() - self._started,
        )
