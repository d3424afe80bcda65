"""How frames of H.264 and HEVC refer to each other, read from NAL unit headers."""

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
# Sub-layer non-reference pictures: no frame of their own temporal layer refers to them.
_HEVC_NOT_REFERENCED = range(0, 16, 2)
_HEVC_ENTRIES = range(16, 24)


class Role(NamedTuple):
    """The role of a frame in the prediction of others.

    Attributes:
        referenced: Another frame of its temporal layer may be predicted from it.
        entry: Decoding may start here (H.264: IDR picture; HEVC: IRAP picture).
        layer: Temporal layer. Frames of higher layers may be predicted from any lower one, so
            only in the highest layer can a frame that is not `referenced` be skipped.
        intra: Known to consist of intra slices (H.264 pictures that are no IDR pictures).
    """

    referenced: bool = True
    entry: bool = False
    layer: int = 0
    intra: bool = False


UNKNOWN = Role()
"""The role where the packet cannot be parsed: its frame is always decoded."""

_ENTRY = Role(entry=True)
_NOT_REFERENCED = Role(referenced=False)


def role_reader(
    codec: str, extradata: bytes | None
) -> Callable[[Packet[VideoStream]], Role] | None:
    """A function from a packet to its frame's role; None for codecs other than H.264 and HEVC.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: The stream's parameter sets; their format tells whether NAL units are preceded
            by their length or by a start code.
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
    # The byte of the avcC or hvcC record with the size of a length field.
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
        # Two fields may share a packet: if one is referenced, both are kept.
        if content[at] & 0x60:
            return _ENTRY if kind == _H264_IDR else Role(intra=_begins_with_i(content[at + 1]))
        slices = True
    return _NOT_REFERENCED if slices else UNKNOWN


def _begins_with_i(slice_header: int) -> bool:
    """Whether the first byte of a slice header is of the picture's first slice, and that is I."""
    # Exponential Golomb codes: first macroblock 0 is "1", slice type 2 is "011", 7 "0001000".
    return slice_header >> 4 == 0b1011 or slice_header == 0b10001000


def _hevc_role(content: bytes | memoryview, units: Iterator[int]) -> Role:
    for at in units:
        kind = content[at] >> 1 & 63
        further_view = content[at] & 1 or content[at + 1] >> 3
        if kind in _HEVC_SLICES and not further_view:
            layer = max(0, (content[at + 1] & 7) - 1)
            return Role(kind not in _HEVC_NOT_REFERENCED, kind in _HEVC_ENTRIES, layer)
    return UNKNOWN


def _after_lengths(content: bytes | memoryview, length_bytes: int) -> Iterator[int]:
    """Offsets of NAL units that are preceded by their length; each has at least two bytes."""
    at = 0
    end = len(content) - 1
    while (start := at + length_bytes) < end:
        yield start
        at = start + int.from_bytes(content[at:start], "big")


def _after_start_codes(content: bytes) -> Iterator[int]:
    """Offsets of NAL units that are preceded by 00 00 01; each has at least two bytes."""
    end = len(content) - 1
    at = content.find(_START_CODE)
    while at >= 0 and at + 3 < end:
        yield at + 3
        at = content.find(_START_CODE, at + 3)
