"""The frames of a file: presentation times, key frames, and frames that others refer to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coinml.errors import CorruptVideoError
from coinml.media.container import frames_of, listen_to, open_video
from coinml.media.nal_headers import UNKNOWN, Role, role_reader
from coinml.media.open_file import VideoPath
from coinml.media.time_stamps import DEEPEST_REORDERING, ascending, without_gaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INTRA_ONLY = {"mjpeg", "prores", "ffv1", "dnxhd", "huffyuv", "rawvideo", "png", "gif", "dvvideo"}

_MAX_FRAMES = 10_000_000
"""Two days at 60 frames a second; a file of a kilobyte can claim any number."""

_SEEKABLE = {"mov", "matroska", "avi"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """The frames of a video in presentation order.

    Attributes:
        times_s: float64 (frames,): presentation times in seconds, as stated by the file,
            corrected where they do not ascend.
        steady_s: The same without gaps that hold no film; clips are placed on it.
        pts: Presentation times in the stream's time base, or frame numbers if `counted`.
        order: Position of each packet in the file, by PTS, including packets whose frames are
            decoded but not shown (cut off by an edit list).
        keys: PTS of the frames at which decoding may start, ascending; empty if decoding must
            start at the beginning of the file.
        skippable: PTS of the frames that no other frame refers to, which need not be decoded on
            the way to another frame. Known for H.264 and HEVC only.
        bits: Bits per colour channel.
        counted: The packets have no usable presentation times, so frames are identified by number.
        needs_pyav: Why decoders that seek to a frame by its number give other pictures of this
            file, in words; None where they do not.
    """

    times_s: NDArray[np.float64]
    pts: tuple[int, ...]
    order: dict[int, int] = field(default_factory=dict)
    keys: tuple[int, ...] = ()
    skippable: frozenset[int] = frozenset()
    bits: int = 8
    counted: bool = False
    needs_pyav: str | None = None
    steady_s: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "steady_s", without_gaps(self.times_s))

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def period_s(self) -> float:
        """Mean time from one frame to the next, in seconds, without gaps."""
        if len(self) < 2:
            return 1 / 25
        return float(self.steady_s[-1] - self.steady_s[0]) / (len(self) - 1)


def read_timeline(path: VideoPath) -> Timeline:
    """Read the presentation times of frames, from the packets alone where they state them.

    Raises:
        CorruptVideoError: The file does not open or holds no video.
    """
    packets = _read_packets(path)
    if packets is None:
        return count_timeline(path)
    order = np.argsort(packets.pts)
    moved = np.abs(order - np.arange(len(packets.pts))).max()
    if moved > 2 * DEEPEST_REORDERING:
        return count_timeline(path)
    reorders = packets.reorders or any(not role.referenced for role in packets.roles)
    if not moved and reorders and not _comes_in_order(path):
        # AVI states when frames are decoded, not when they are shown.
        return count_timeline(path)
    keys = _entry_points(packets)
    return Timeline(
        times_s=np.asarray(packets.shown, dtype=np.float64) * packets.tick_s,
        pts=packets.shown,
        order={pts: place for place, pts in enumerate(packets.pts)},
        keys=tuple(sorted(keys)),
        skippable=_skippable(packets.pts, packets.roles),
        bits=packets.bits,
        needs_pyav=_needs_pyav(packets, keys),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Packets:
    """The packets of the film's stream, in the order of the file.

    Attributes:
        pts: Presentation time of each packet, in the stream's time base; no two are equal.
        shown: The presentation times of frames that are shown, ascending.
        keys: Presentation times of packets that are marked as key frames.
        roles: What each packet is to the others, where its codec tells.
        codec: Name of the codec.
        tells_roles: Whether the codec tells the packets' roles.
        reorders: Whether the codec decodes frames in another order than they are shown.
        palette: Whether pixels are indices into a palette that packets carry.
        bits: Bits per colour channel.
        tick_s: The stream's time base in seconds.
        container: Names of the container's format.
        video_streams: Number of video streams in the file.
    """

    pts: list[int]
    shown: tuple[int, ...]
    keys: list[int]
    roles: list[Role]
    codec: str
    tells_roles: bool
    reorders: bool
    palette: bool
    bits: int
    tick_s: float
    container: frozenset[str]
    video_streams: int


def _read_packets(path: VideoPath) -> _Packets | None:
    """The packets with their times; None where these do not tell which frame is shown when."""
    import av

    every: list[int] = []
    shown: list[int] = []
    keys: list[int] = []
    roles: list[Role] = []
    last_dts: int | None = None
    with open_video(path) as (container, stream):
        listen_to(container, stream)
        context = stream.codec_context
        role_of = role_reader(context.name, context.extradata)
        try:
            for packet in container.demux(stream):
                if not packet.size or (packet.pts is None and packet.is_discard):
                    continue
                if packet.pts is None:
                    return None
                if packet.dts is not None:
                    if last_dts is not None and packet.dts < last_dts:
                        return None  # Another recording begins, with a clock of its own.
                    last_dts = packet.dts
                every.append(packet.pts)
                if len(every) > _MAX_FRAMES:
                    raise CorruptVideoError(
                        f"{Path(path).name}: more than {_MAX_FRAMES:,} frames are not decoded"
                    )
                if not packet.is_discard:
                    shown.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
                roles.append(role_of(packet) if role_of else UNKNOWN)
        except av.error.FFmpegError:
            pass  # A truncated file: use the packets read so far.
        if not shown or not stream.time_base or len(set(every)) < len(every):
            return None
        layout = context.format
        return _Packets(
            pts=every,
            shown=tuple(sorted(shown)),
            keys=keys,
            roles=roles,
            codec=context.name,
            tells_roles=role_of is not None,
            reorders=bool(context.has_b_frames),
            palette=layout is not None and layout.name == "pal8",
            bits=max((part.bits for part in layout.components), default=8) if layout else 8,
            tick_s=float(stream.time_base),
            container=frozenset(container.format.name.split(",")),
            video_streams=len(container.streams.video),
        )


def _entry_points(packets: _Packets) -> list[int]:
    """Presentation times of the packets at which decoding may start."""
    if packets.palette:
        # The palette comes with the first packet, or between any two, and not with key frames.
        return []
    if len(packets.keys) == len(packets.pts) and packets.codec not in _INTRA_ONLY:
        # In a file without a table of key frames, all packets are marked as key frames.
        marked = zip(packets.pts, packets.roles, strict=True)
        return [pts for pts, role in marked if role.entry]
    return packets.keys


def _needs_pyav(packets: _Packets, keys: list[int]) -> str | None:
    """See `Timeline.needs_pyav`."""
    if packets.video_streams > 1:
        return "several video streams"
    if len(packets.shown) < len(packets.pts):
        return "an edit list hides frames"
    if not _SEEKABLE & packets.container:
        return f"no exact seeking in {','.join(sorted(packets.container))}"
    starts = set(keys)
    if not starts:
        return "decoding must start at the beginning of the file"
    key = packets.pts[0]
    for pts in packets.pts:
        if pts in starts:
            key = pts
        elif pts < key:
            return "open groups of pictures"
    if packets.tells_roles:
        for pts, role in zip(packets.pts, packets.roles, strict=True):
            if pts in starts and not (role.entry or role.intra):
                return "pictures are renewed bit by bit (intra refresh)"
    return None


def _skippable(every: list[int], roles: list[Role]) -> frozenset[int]:
    top = max(role.layer for role in roles)
    return frozenset(
        pts
        for pts, role in zip(every, roles, strict=True)
        if not role.referenced and role.layer == top
    )


def count_timeline(path: VideoPath) -> Timeline:
    """The timeline by a full decode, for packets with missing or wrong presentation times.

    Raises:
        CorruptVideoError: No frame decodes.
    """
    times: list[float | None] = []
    with open_video(path) as (container, stream):
        rate = float(stream.average_rate or 25)
        times.extend(frame.time for frame in frames_of(container, stream))
    if not times:
        raise CorruptVideoError(f"{Path(path).name}: opens, but no frame decodes")
    return Timeline(
        times_s=ascending(times, period_s=1 / rate), pts=tuple(range(len(times))), counted=True
    )


def _comes_in_order(path: VideoPath) -> bool:
    """Whether the frames' times ascend as they come out of the decoder."""
    last = float("-inf")
    with open_video(path) as (container, stream):
        listen_to(container, stream)
        for frame in frames_of(container, stream):
            if frame.time is not None:
                if frame.time < last:
                    return False
                last = frame.time
    return True
