"""Comparing the number of frames in a header with the packets of the stream."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from coinml.media.open_file import VideoPath, opened

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_LARGEST_EMPTY_VOP = 19
"""Bytes; FFmpeg's own limit (MAX_NVOP_SIZE)."""


class ClaimedFrames:
    """Decides whether a file lost frames, from its header, its index and its packets.

    A header also counts frames that are not shown: frames cut off by an edit list, empty chunks
    (dropped by a camera), MPEG-4 pictures that only repeat the previous one, and leading pictures
    that refer to frames before the start of the stream. A file with fewer packets than its index
    lists, or whose stream ends early, is truncated.

    Args:
        path: The file.
        container: Opened and not yet read.
        stream: Its video stream.
    """

    def __init__(self, path: VideoPath, container: InputContainer, stream: VideoStream) -> None:
        self._path = path
        self._stream = stream
        self._format = container.format.name
        self._codec = stream.codec_context.name
        self.number = stream.frames or None
        self._indexed = len(stream.index_entries)
        self._packets = 0
        self._discarded = 0
        self._without_picture = 0
        self._last_dts: int | None = None
        self._starts_at_key = False
        self._second_key: int | None = None
        self._shown: list[int] = []

    def add(self, packet: Packet[Any]) -> None:
        """Count a packet of the stream."""
        if self.number is None or not packet.size:
            return
        self._packets += 1
        self._last_dts = packet.dts if packet.dts is not None else self._last_dts
        if packet.is_keyframe and self._packets == 1:
            self._starts_at_key = True
        elif packet.is_keyframe and self._second_key is None:
            self._second_key = packet.pts
        if packet.is_discard:
            self._discarded += 1
        elif _has_no_picture(self._codec, packet):
            self._without_picture += 1
        elif packet.pts is not None:
            self._shown.append(packet.pts)

    def missing(self, decoded: int, first_pts: int | None) -> bool:
        """Whether frames were lost, given the number of decoded ones and the first one's PTS."""
        if self.number is None or decoded >= self.number:
            return False
        hidden = self._discarded + self._without_picture + self._leading(first_pts)
        return decoded < self._packets - hidden or self._is_cut()

    def why_fewer(self, decoded: int, first_pts: int | None) -> str | None:
        """Why an undamaged file has fewer frames than its header states; None if it has not."""
        if self.number is None or decoded >= self.number:
            return None
        leading = self._leading(first_pts)
        absent = self.number - self._packets
        empty = sum(entry.size == 0 for entry in self._stream.index_entries) if self._is_mov else 0
        parts = {
            "cut off by an edit list": self._discarded + (absent - empty if self._is_mov else 0),
            "empty": empty if self._is_mov else absent,
            "without a picture of their own": self._packets - self._discarded - leading - decoded,
            "predicted from frames before the cut": leading,
        }
        causes = ", ".join(f"{count} {what}" for what, count in parts.items() if count > 0)
        return f"{self.number - decoded} of {self.number} claimed frames are not shown ({causes})"

    @property
    def _is_mov(self) -> bool:
        return self._format.startswith("mov,")

    def _leading(self, first_pts: int | None) -> int:
        """Number of pictures before the first one that decodes, of its group of pictures."""
        if first_pts is None or not self._starts_at_key:
            return 0
        if self._second_key is not None and first_pts > self._second_key:
            return 0
        return sum(pts < first_pts for pts in self._shown)

    def _is_cut(self) -> bool:
        stream = self._stream
        if self._is_mov:
            # The index is part of the header and has edit lists applied.
            return self._packets < sum(entry.size > 0 for entry in stream.index_entries)
        if self._packets < self._indexed:
            return True
        if self._last_dts is not None and stream.average_rate and stream.time_base:
            ticks = self._last_dts - (stream.start_time or 0)
            # Time stamps include empty chunks.
            last = ticks * stream.time_base * stream.average_rate
            if last > (self.number or 0) - 1.5:
                return False
        return self._format != "avi" or not _riff_is_whole(self._path)


def _has_no_picture(codec: str, packet: Packet[Any]) -> bool:
    """Whether a packet repeats the frame before it (MPEG-4) or is never shown (VP8)."""
    if codec == "mpeg4":
        return packet.size <= _LARGEST_EMPTY_VOP
    return codec == "vp8" and not memoryview(packet)[0] & 0x10


def _riff_is_whole(path: VideoPath) -> bool:
    """Whether a file ends where its last RIFF chunk ends."""
    at = 0
    with opened(path) as file:
        size = os.fstat(file.descriptor).st_size
        while at < size:
            # FFmpeg reads on from the descriptor's position.
            head = os.pread(file.descriptor, 8, at)
            if head[:4] != b"RIFF":
                return at > 0
            at += 8 + int.from_bytes(head[4:], "little")
    return 8 < at <= size
