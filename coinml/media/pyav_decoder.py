"""Decoding with PyAV: seek to key frames and skip frames that are not needed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from coinml.media.container import frames_of, listen_to, open_video
from coinml.media.decoders import Keep
from coinml.media.open_file import VideoPath
from coinml.media.orientation import orientation_of
from coinml.media.picture_bounds import check_size, kept_size

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from coinml.media.timeline import Timeline

_MAX_SKIPPED_PACKETS = 50
"""Up to so many packets are read and dropped, which is faster than a seek."""


class PyavDecoder:
    """FFmpeg through PyAV.

    On the way to a wanted frame, frames that no other refers to are skipped (H.264, HEVC), which
    leaves the pixels of the others bit-identical.
    """

    name = "pyav"

    def read(self, path: VideoPath, timeline: Timeline, numbers: Sequence[int], keep: Keep) -> None:
        """See `Decoder`."""
        pixels = _Converter(Path(path).name)
        wanted = {timeline.pts[number]: number for number in numbers}

        def take(frame: VideoFrame, pts: int | None) -> None:
            number = wanted.pop(pts, None) if pts is not None else None
            if number is not None:
                keep(number, pixels(frame))

        with open_video(path) as (container, stream):
            listen_to(container, stream)
            if timeline.counted:
                for count, frame in enumerate(frames_of(container, stream)):
                    take(frame, count)
                    if not wanted:
                        break
                return
            decoder = RangeDecoder(container, stream, timeline, take)
            for span in packet_ranges(timeline, sorted(wanted)):
                decoder.decode(span)


@dataclass(slots=True)
class PacketRange:
    """Consecutive packets to decode without a seek.

    Attributes:
        key: PTS of the key frame at its start, None for the start of the file.
        start: Position of its first packet in the file.
        end: Position of its last packet.
        wanted: PTS of the wanted frames in it.
    """

    key: int | None
    start: int
    end: int
    wanted: set[int]


def packet_ranges(timeline: Timeline, wanted: Sequence[int]) -> list[PacketRange]:
    """The packets to decode for wanted frames, given by ascending PTS."""
    found: list[PacketRange] = []
    for pts in wanted:
        # By presentation time: a frame after a key frame in the file that is shown before it may
        # need the previous key frame.
        place = bisect_right(timeline.keys, pts) - 1
        key = timeline.keys[place] if place >= 0 else None
        start = 0 if key is None else timeline.order[key]
        end = timeline.order[pts]
        if found and start <= found[-1].end + 1:
            found[-1].end = max(end, found[-1].end)
            found[-1].wanted.add(pts)
        else:
            found.append(PacketRange(key, start, end, {pts}))
    return found


class RangeDecoder:
    """Decodes packet ranges of one open file, in ascending order."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        timeline: Timeline,
        take: Callable[[VideoFrame, int | None], None],
    ) -> None:
        self._container = container
        self._stream = stream
        self._timeline = timeline
        self._take = take
        self._packets: Iterator[Packet[VideoStream]] = container.demux(stream)
        self._next = 0

    def decode(self, span: PacketRange) -> None:
        """Decode a range and call `take` with every frame."""
        packet = self._go_to(span)
        if packet is None:
            return  # The caller counts missing frames.
        skippable = self._timeline.skippable
        at = span.start
        while True:
            if packet.pts not in skippable or packet.pts in span.wanted:
                self._decode(packet)
            if at >= span.end or (packet := self._read()) is None:
                break
            place = self._place(packet)
            at = at + 1 if place is None else place
        self._next = at + 1
        # Flush frames that the decoder holds back for reordering.
        self._decode(None)
        self._stream.codec_context.flush_buffers()

    def _go_to(self, span: PacketRange) -> Packet[VideoStream] | None:
        """The first packet of a range."""
        gap = span.start - self._next
        if 0 <= gap <= _MAX_SKIPPED_PACKETS and (found := self._find(span)):
            return found
        keys = self._timeline.keys
        place = bisect_right(keys, span.key) if span.key is not None else 0
        # With a poor index a seek lands after the key frame: try earlier ones.
        for key in reversed(keys[max(0, place - 3) : place]):
            if found := self._seek(key, span):
                return found
        return self._seek(min(self._timeline.order), span)

    def _seek(self, pts: int, span: PacketRange) -> Packet[VideoStream] | None:
        import av

        try:
            self._container.seek(pts, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return None
        self._packets = self._container.demux(self._stream)
        return self._find(span)

    def _find(self, span: PacketRange) -> Packet[VideoStream] | None:
        """Read on to the first packet of a range; None if it does not come."""
        while (packet := self._read()) is not None:
            at = self._place(packet)
            if at == span.start:
                return packet
            if at is not None and at > span.start:
                break
        return None

    def _place(self, packet: Packet[VideoStream]) -> int | None:
        """Position of a packet in the file."""
        return None if packet.pts is None else self._timeline.order.get(packet.pts)

    def _read(self) -> Packet[VideoStream] | None:
        """The next packet of the stream; None at its end."""
        import av

        try:
            for packet in self._packets:
                if packet.size:
                    return packet
        except av.error.FFmpegError:
            pass
        return None

    def _decode(self, packet: Packet[VideoStream] | None) -> None:
        import av

        try:
            for frame in self._stream.codec_context.decode(packet):
                self._take(frame, frame.pts)
        except av.error.FFmpegError:
            return


class _Converter:
    """Converts decoded frames to upright RGB pixels of one size."""

    def __init__(self, name: str) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._name = name
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if self._size is None:
            # If the frame size changes later (adaptive streams), frames are scaled to the first.
            check_size(frame.width, frame.height, self._name)
            self._size = kept_size(frame.width, frame.height)
        width, height = self._size
        smaller = width < frame.width
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation="AREA" if smaller else None, threads=1
        )
        pixels = rgb.to_ndarray().astype(np.uint8, copy=False)
        return orientation_of(frame).upright(pixels)
