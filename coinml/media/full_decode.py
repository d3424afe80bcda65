"""A full decode of a file in this process, and its verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import CorruptVideoError
from coinml.media.claimed_frames import ClaimedFrames
from coinml.media.container import describe, duration_of, open_video
from coinml.media.open_file import VideoPath
from coinml.media.picture_bounds import check_size
from coinml.media.records import Verdict

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_SHORTFALL = 0.9
_SHORTFALL_S = 1.0


def decode_fully(path: VideoPath) -> Verdict:
    """Decode every frame in this process.

    Raises:
        InvalidInputError: There is no such file.
        LocalError: The file may not be read.
    """
    try:
        return _FullDecode(path).run()
    except CorruptVideoError as err:
        return unusable(path, str(err))


def unusable(path: VideoPath, reason: str, *, frames_claimed: int | None = None) -> Verdict:
    """The verdict on a file of which no frame decodes."""
    return Verdict(
        file=str(path),
        verdict="unusable",
        frames_claimed=frames_claimed,
        frames_decoded=0,
        reason=reason,
    )


class _FullDecode:
    """Compares what a file's header claims with the frames that decode."""

    def __init__(self, path: VideoPath) -> None:
        self._path = path
        self._claimed: ClaimedFrames | None = None
        self._decoded = 0
        self._first_pts: int | None = None
        self._short_side_px: int | None = None
        self._first_error: str | None = None
        self._times_s: list[float | None] = []
        self._header_s: float | None = None
        self._packets_start_s = 0.0
        self._packets_end_s = float("-inf")
        self._frame_s = 0.0

    def run(self) -> Verdict:
        import av

        with open_video(self._path) as (container, stream):
            self._claimed = ClaimedFrames(self._path, container, stream)
            self._frame_s = 1 / float(stream.average_rate) if stream.average_rate else 0.0
            header_s = duration_of(container, stream)
            try:
                for packet in container.demux():
                    if packet.pts is not None and packet.time_base:
                        start_s = float(packet.pts * packet.time_base)
                        end_s = start_s + float((packet.duration or 0) * packet.time_base)
                        self._packets_start_s = min(self._packets_start_s, start_s)
                        self._packets_end_s = max(self._packets_end_s, end_s)
                    # Not `packet.stream_index`, which is 0 for the last packet of any stream.
                    if packet.stream.index != stream.index:
                        continue
                    self._claimed.add(packet)
                    try:
                        for frame in stream.decode(packet):
                            self._count(frame)
                    except av.error.FFmpegError as err:
                        # Continue: packets after a bad one may decode.
                        self._note(f"{describe(err)} after frame {self._decoded}")
            except av.error.FFmpegError as err:
                self._note(f"reading ends after frame {self._decoded}: {describe(err)}")
            self._header_s = header_s
            return self._verdict(self._claimed)

    def _count(self, frame: VideoFrame) -> None:
        check_size(frame.width, frame.height, Path(self._path).name)
        self._decoded += 1
        if self._first_pts is None:
            self._first_pts = frame.pts
        if self._short_side_px is None:
            self._short_side_px = min(frame.width, frame.height)
        self._times_s.append(frame.time)

    def _note(self, error: str) -> None:
        self._first_error = self._first_error or error

    def _verdict(self, claimed: ClaimedFrames) -> Verdict:
        name = Path(self._path).name
        if not self._decoded:
            cause = self._first_error or "opens, but no frame decodes"
            return unusable(self._path, f"{name}: {cause}", frames_claimed=claimed.number)
        shortcoming = self._shortcoming(claimed)
        reason = shortcoming or claimed.why_fewer(self._decoded, self._first_pts)
        from coinml.media.time_stamps import film_length_s

        length_s = film_length_s(self._times_s, period_s=self._frame_s or 1 / 25)
        stated = [time_s for time_s in self._times_s if time_s is not None]
        return Verdict(
            file=str(self._path),
            verdict="damaged" if shortcoming else "ok",
            frames_claimed=claimed.number,
            frames_decoded=self._decoded,
            reason=f"{name}: {reason}" if reason else None,
            duration_s=round(length_s, 3),
            earliest_s=round(min(stated), 3) if stated else None,
            latest_s=round(max(stated), 3) if stated else None,
            short_side_px=self._short_side_px,
        )

    def _shortcoming(self, claimed: ClaimedFrames) -> str | None:
        if self._first_error:
            return self._first_error
        if claimed.missing(self._decoded, self._first_pts):
            return f"{self._decoded} of {claimed.number} claimed frames decode"
        if claimed.number is not None:
            return None
        # Matroska and WebM state no number of frames, and a truncated file ends without an error.
        # It is recognised by the last packet of any stream, which ends well before the stated
        # duration (which counts from zero, even if the first frame is later; a transport stream
        # whose clock wraps around begins below zero).
        header_s, end_s = self._header_s, self._packets_end_s - self._packets_start_s
        if header_s is not None and 0 <= end_s < min(
            _SHORTFALL * header_s, header_s - _SHORTFALL_S
        ):
            return f"claims {header_s:.1f} s and ends after {end_s:.1f} s"
        return None
