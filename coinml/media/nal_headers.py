"""What a packet of H.264 or HEVC says of its frame, read from its headers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

_START_CODE = b"\x00\x00\x01"
_H264_SLICES = {1, 2, 5}
_H264_IDR = 5
_HEVC_SLICES = range(32)
# Those that no other frame of their own temporal layer refers to: the even ones up to 14.
_HEVC_NOT_REFERRED_TO = range(0, 16, 2)
_HEVC_ENTRIES = range(16, 24)


class Role(NamedTuple):
    """The place of a frame among the others.

    Attributes:
        referred_to: Another frame of its temporal layer may be predicted from it.
        entry: Decoding may start here (an IDR picture; any IRAP picture of HEVC).
        layer: Its temporal layer. Frames of higher layers may be predicted from it, so that
            only in the highest one a frame that is not `referred_to` can be left out.
    """

    referred_to: bool = True
    entry: bool = False
    layer: int = 0


UNKNOWN = Role()
"""Of a packet that makes no sense: its frame is decoded."""

_ENTRY = Role(entry=True)
_SPARE = Role(referred_to=False)


def role_reader(
    codec: str, extradata: bytes | None
) -> Callable[[Packet[VideoStream]], Role] | None:
    """A function from a packet to its frame's role; None for a codec that is not known here.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The stream's parameter sets, from which it follows whether units begin with
            their length or with a start code.
    """
    role = {"h264": _h264_role, "hevc": _hevc_role}.get(codec)
    if role is None:
        return None
    head = extradata or b""
    if not head or head.startswith((_START_CODE, b"\x00" + _START_CODE)):

        def read_after_start_codes(packet: Packet[VideoStream]) -> Role:
            content = bytes(packet)
            return role(content, _after_start_codes(content))

        return read_after_start_codes
    # The byte of the avcC or hvcC record that holds the size of a length.
    at = 4 if codec == "h264" else 21
    length_bytes = (head[at] & 3) + 1 if len(head) > at else 4

    def read_after_lengths(packet: Packet[VideoStream]) -> Role:
        content = memoryview(packet)
        return role(content, _after_lengths(content, length_bytes))

    return read_after_lengths


def _h264_role(content: bytes | memoryview, units: Iterator[int]) -> Role:
    slices = False
    for at in units:
        kind = content[at] & 31
        if kind not in _H264_SLICES:
            continue
        # Two fields may share a packet: one that is referred to keeps both.
        if content[at] & 0x60:
            return _ENTRY if kind == _H264_IDR else UNKNOWN
        slices = True
    return _SPARE if slices else UNKNOWN


def _hevc_role(content: bytes | memoryview, units: Iterator[int]) -> Role:
    for at in units:
        kind = content[at] >> 1 & 63
        further_view = content[at] & 1 or content[at + 1] >> 3
        if kind in _HEVC_SLICES and not further_view:
            layer = max(0, (content[at + 1] & 7) - 1)
            return Role(kind not in _HEVC_NOT_REFERRED_TO, kind in _HEVC_ENTRIES, layer)
    return UNKNOWN


def _after_lengths(content: bytes | memoryview, length_bytes: int) -> Iterator[int]:
    """Where units begin that are preceded by their length; at least two bytes are there."""
    at = 0
    end = len(content) - 1
    while (start := at + length_bytes) < end:
        yield start
        at = start + int.from_bytes(content[at:start], "big")


def _after_start_codes(content: bytes) -> Iterator[int]:
    """Where units begin that are preceded by 00 00 01; at least two bytes are there."""
    end = len(content) - 1
    at = content.find(_START_CODE)
    while at >= 0 and at + 3 < end:
        yield at + 3
        at = content.find(_START_CODE, at + 3)
