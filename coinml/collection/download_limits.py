"""How much may arrive for one video, and how long that may take."""

from __future__ import annotations

import time
from dataclasses import dataclass

from coinml.faults.classification import Fault, as_error

SIZE_FLOOR_BYTES = 64_000_000
"""Size that any file may have."""

TIME_PER_SECOND = 10.0
"""Seconds of a download for each second of the video's length."""

_USUAL_LENGTH_S = 600.0
"""Length of videos whose length the annotations do not state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may arrive for one video, and how long that may take.

    Attributes:
        size_bytes: Maximum size of the file.
        time_s: Maximum time in seconds.
        length: The video's length by the annotations, in words.
    """

    size_bytes: int
    time_s: float
    length: str

    @classmethod
    def of(
        cls,
        duration_s: float | None,
        *,
        max_mb_per_s: float,
        max_minutes: float,
        rate_limit_bytes: int | None = None,
    ) -> Limits:
        """The limits of a video.

        Args:
            duration_s: Its annotated length in seconds; None: as of a video of ten minutes.
            max_mb_per_s: Megabytes for each second of that length, beside `SIZE_FLOOR_BYTES`.
            max_minutes: Minutes, beside `TIME_PER_SECOND` for each second of that length.
            rate_limit_bytes: Maximum bytes per second; the largest file then has the time it needs.
        """
        length_s = _USUAL_LENGTH_S if duration_s is None else duration_s
        size_bytes = int(SIZE_FLOOR_BYTES + 1e6 * max_mb_per_s * length_s)
        time_s = 60 * max_minutes + TIME_PER_SECOND * length_s
        if rate_limit_bytes:
            time_s += size_bytes / rate_limit_bytes
        return cls(
            size_bytes=size_bytes,
            time_s=time_s,
            length="unknown length" if duration_s is None else f"{duration_s:.0f} s",
        )

    def check(self, size_bytes: int, deadline: float) -> None:
        """Check what has arrived so far.

        Args:
            size_bytes: Its size.
            deadline: When the time is over, on the monotonic clock.

        Raises:
            UnavailableError: Too much.
            TransientError: Too late.
        """
        if size_bytes > self.size_bytes:
            raise as_error(
                Fault.UNSUPPORTED,
                f"larger than {self.size_bytes / 1e6:.0f} MB, the limit for a video of "
                f"{self.length} (--max-mb-per-s)",
                rule="too large",
            )
        if time.monotonic() > deadline:
            raise as_error(
                Fault.TRANSIENT,
                f"not downloaded in {self.time_s:.0f} s, the limit for a video of "
                f"{self.length} (--max-minutes)",
                rule="too slow",
            )
