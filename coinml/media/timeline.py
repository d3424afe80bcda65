"""Which frames a file has and when they are shown, and which of them make the clips."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media.container import open_video

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from coinml.media.records import ClipSpec

_INTRA_ONLY = {"mjpeg", "prores", "ffv1", "dnxhd", "huffyuv", "rawvideo", "png", "gif", "dvvideo"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """The frames of a video in the order in which they are shown.

    Attributes:
        times_s: float64 (frames,): presentation times as the file states them.
        pts: The same in the stream's own ticks, or the frame's number where `counted`.
        order: Place of each frame's packet in the file, by its ticks.
        keys: Ticks of the frames at which decoding may start, ascending; empty where only
            the start of the file will do.
        bits: Depth of a colour channel.
        counted: The packets do not say when they are shown, so that frames go by number.
    """

    times_s: NDArray[np.float64]
    pts: tuple[int, ...]
    order: dict[int, int] = field(default_factory=dict)
    keys: tuple[int, ...] = ()
    bits: int = 8
    counted: bool = False

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def period_s(self) -> float:
        """Mean time from one frame to the next, in seconds."""
        if len(self) < 2:
            return 1 / 25
        return float(self.times_s[-1] - self.times_s[0]) / (len(self) - 1)


def read_timeline(path: str | Path) -> Timeline:
    """Read when frames are shown, from the packets alone where they say.

    Raises:
        CorruptVideoError: The file does not open or holds no video.
    """
    import av

    pts: list[int] = []
    keys: list[int] = []
    whole = True
    with open_video(path) as (container, stream):
        try:
            for packet in container.demux(stream):
                if not packet.size or packet.is_discard:
                    continue
                if packet.pts is None:
                    whole = False
                    break
                pts.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        except av.error.FFmpegError:
            pass  # A cut file: what was read up to here is what there is.
        codec, tick = stream.codec_context.name, stream.time_base
        layout = stream.codec_context.format
    if not whole or not pts or not tick or len(set(pts)) < len(pts):
        return count_timeline(path)
    if len(keys) == len(pts) and codec not in _INTRA_ONLY:
        # A file without a table of key frames passes all of its frames off as key frames.
        keys = []
    ordered = sorted(pts)
    return Timeline(
        times_s=np.asarray(ordered, dtype=np.float64) * float(tick),
        pts=tuple(ordered),
        order={value: place for place, value in enumerate(pts)},
        keys=tuple(sorted(keys)),
        bits=max((part.bits for part in layout.components), default=8) if layout else 8,
    )


def count_timeline(path: str | Path) -> Timeline:
    """The same by decoding the whole file, for packets that do not say or say it wrongly.

    Raises:
        CorruptVideoError: Not a single frame decodes.
    """
    import av

    times: list[float] = []
    with open_video(path) as (container, stream):
        rate = float(stream.average_rate or 25)
        try:
            for packet in container.demux(stream):
                try:
                    frames = stream.decode(packet)
                except av.error.FFmpegError:
                    continue
                for frame in frames:
                    time_s = frame.time
                    if time_s is None or (times and time_s <= times[-1]):
                        time_s = times[-1] + 1 / rate if times else 0.0
                    times.append(time_s)
        except av.error.FFmpegError:
            pass
    if not times:
        raise CorruptVideoError(f"{Path(path).name}: opens, but no frame decodes")
    return Timeline(
        times_s=np.asarray(times, dtype=np.float64), pts=tuple(range(len(times))), counted=True
    )


def place_clips(
    timeline: Timeline,
    spec: ClipSpec,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> NDArray[np.int64]:
    """Choose the frames of every clip.

    Args:
        timeline: The video's frames.
        spec: How clips are laid.
        start_s: Start of the extent in seconds from the first frame; None is the first frame.
        end_s: Its end; None is the end of the video.

    Returns:
        int64 (clips, frames): numbers of frames on the timeline.

    Raises:
        InvalidInputError: No frame lies in the extent, or it is shorter than a clip and the
            spec's policy is `error`.
    """
    times = timeline.times_s
    first, last = _extent(timeline, start_s, end_s)
    step_s = spec.stride * timeline.period_s
    span_s = (spec.frames - 1) * step_s
    room_s = float(times[last] - times[first]) - span_s
    parts = (np.arange(spec.clips) + 0.5) / spec.clips
    if room_s < -timeline.period_s / 2 and spec.short == "error":
        raise InvalidInputError(
            f"a clip spans {span_s:.2f} s and there are {times[last] - times[first]:.2f} s of video"
        )
    starts = times[_nearest(times, times[first] + max(room_s, 0.0) * parts, first, last)]
    wanted = starts[:, None] + step_s * np.arange(spec.frames)
    if spec.short == "wrap":
        length_s = float(times[last] - times[first]) + timeline.period_s
        # Half a period of slack: the last frame is still itself, not the first one again.
        slack_s = timeline.period_s / 2
        wanted = times[first] - slack_s + (wanted - times[first] + slack_s) % length_s
    return _nearest(times, wanted, first, last)


def _extent(timeline: Timeline, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """Numbers of the first and the last frame of an extent."""
    origin = float(timeline.times_s[0])
    # A frame belongs to the extent that holds the greater part of the time it is shown.
    slack_s = timeline.period_s / 2
    first = 0
    last = len(timeline) - 1
    if start_s is not None:
        first = int(np.searchsorted(timeline.times_s, origin + start_s - slack_s))
    if end_s is not None:
        last = int(np.searchsorted(timeline.times_s, origin + end_s - slack_s)) - 1
    if first > last or first >= len(timeline):
        shown_s = float(timeline.times_s[-1]) - origin + timeline.period_s
        raise InvalidInputError(
            f"no frame lies between {start_s} and {end_s} s; the video is {shown_s:.2f} s long"
        )
    return first, last


def _nearest(
    times: NDArray[np.float64], wanted: NDArray[np.float64], first: int, last: int
) -> NDArray[np.int64]:
    """Number of the frame nearest to each wanted time, within an extent."""
    after = np.clip(np.searchsorted(times, wanted), first, last)
    before = np.clip(after - 1, first, last)
    nearer_before = wanted - times[before] <= times[after] - wanted
    return np.where(nearer_before, before, after).astype(np.int64)
