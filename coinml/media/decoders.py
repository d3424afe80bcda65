"""decord and PyAV behind one protocol: give me these frames of this file."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from coinml.errors import CoinmlError, CorruptVideoError
from coinml.media.container import clockwise, open_video

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from coinml.media.timeline import Timeline

logger = logging.getLogger(__name__)

Keep = Callable[[int, "NDArray[np.uint8]"], None]
"""Takes a frame's number on the timeline and its pixels, uint8 (height, width, 3), upright."""

LARGEST_SHORT_SIDE = 1080
"""Larger pictures are scaled down as they are decoded: 128 frames of an 8K file are 12 GB."""

_WORTH_A_SEEK = 8
_SKIPS_EXACTLY = {"h264", "hevc"}


class DecoderUnsuitedError(CoinmlError):
    """This decoder cannot give the right frames of this file; another may."""


class Decoder(Protocol):
    """Reads chosen frames of a file."""

    name: str

    def read(
        self, path: str | Path, timeline: Timeline, numbers: Sequence[int], keep: Keep
    ) -> None:
        """Hand each frame in `numbers` (ascending) to `keep`; leave out what does not decode.

        Raises:
            DecoderUnsuitedError: Another decoder should try.
            CorruptVideoError: The file does not open.
        """
        ...


class PyavDecoder:
    """FFmpeg through PyAV, from key frame to wanted frame.

    On the way to a frame, those that no other frame refers to are not decoded (H.264, HEVC),
    which leaves the pixels of the others bit-identical.
    """

    name = "pyav"

    def read(
        self, path: str | Path, timeline: Timeline, numbers: Sequence[int], keep: Keep
    ) -> None:
        """See `Decoder`."""
        pixels = _Converter()
        wanted = {timeline.pts[number]: number for number in numbers}

        def take(frame: VideoFrame, pts: int) -> None:
            number = wanted.pop(pts, None)
            if number is not None:
                keep(number, pixels(frame))

        with open_video(path) as (container, stream):
            if timeline.counted:
                for count, frame in enumerate(_decode_on(container, stream)):
                    take(frame, count)
                    if not wanted:
                        break
                return
            _Walk(container, stream, timeline, take).visit(sorted(wanted))


class _Walk:
    """One way through a file, from wanted frame to wanted frame."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        timeline: Timeline,
        take: Callable[[VideoFrame, int], None],
    ) -> None:
        self._container = container
        self._stream = stream
        self._timeline = timeline
        self._take = take
        self._skips = stream.codec_context.name in _SKIPS_EXACTLY
        self._packets: Iterator[Packet[VideoStream]] = container.demux(stream)
        self._at = -1
        self._shown: int | None = None
        self._ended = False

    def visit(self, wanted: Sequence[int]) -> None:
        self._wanted = set(wanted)
        for pts in wanted:
            if pts not in self._wanted:
                continue
            self._approach(pts)
            # Frames come in the order in which they are shown: a later one means that this
            # one will not come any more.
            while pts in self._wanted and not self._ended:
                if self._shown is not None and self._shown > pts:
                    break
                self._feed()

    def _approach(self, pts: int) -> None:
        """Jump to the last key frame before a frame where that spares decoding."""
        keys = self._timeline.keys
        place = bisect_right(keys, pts) - 1
        if place < 0:
            return
        if self._timeline.order[keys[place]] - self._at <= _WORTH_A_SEEK and not self._ended:
            return
        for key in reversed(keys[max(0, place - 3) : place + 1]):
            self._seek(key)
            if self._at < self._timeline.order[pts]:
                return
        # Containers with a poor index land behind the frame: from the start, then.
        self._seek(self._timeline.pts[0])

    def _seek(self, key: int) -> None:
        self._container.seek(key, stream=self._stream, backward=True)
        self._packets = self._container.demux(self._stream)
        self._shown = None
        self._ended = False
        self._at = -1
        self._feed()

    def _feed(self) -> None:
        """Decode one packet."""
        import av

        context = self._stream.codec_context
        packet = next(self._packets, None)
        if packet is None:
            self._ended = True
            return
        if packet.pts is not None:
            self._at = self._timeline.order.get(packet.pts, self._at)
            if self._skips:
                context.skip_frame = "DEFAULT" if packet.pts in self._wanted else "NONREF"
        try:
            frames = self._stream.decode(packet)
        except av.error.FFmpegError:
            return  # What is missing is counted by the caller.
        for frame in frames:
            if frame.pts is not None:
                self._shown = frame.pts
                if frame.pts in self._wanted:
                    self._wanted.discard(frame.pts)
                    self._take(frame, frame.pts)


class DecordDecoder:
    """decord, where it is installed: x86-64 only and no longer maintained."""

    name = "decord"

    def read(
        self, path: str | Path, timeline: Timeline, numbers: Sequence[int], keep: Keep
    ) -> None:
        """See `Decoder`."""
        try:
            import decord
        except (ImportError, OSError) as err:
            raise DecoderUnsuitedError("decord is not installed") from err
        decord.logging.set_level(decord.logging.QUIET)
        if timeline.counted or timeline.bits > 8:
            # Its FFmpeg of 2020 gives wrong colours for 10-bit video.
            raise DecoderUnsuitedError("decord reads neither 10-bit video nor untimed frames")
        try:
            reader = decord.VideoReader(str(path), num_threads=1)
            shown = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]
            difference = _difference(shown, timeline) or _too_large(reader[0].shape)
            pixels = None if difference else reader.get_batch(list(numbers)).asnumpy()
        except Exception as err:
            # DECORDError, RuntimeError and IndexError, all of them for a file it cannot read.
            difference, pixels = str(err).splitlines()[-1][:200], None
        if difference or pixels is None:
            raise DecoderUnsuitedError(f"{Path(path).name}: {difference}")
        for number, picture in zip(numbers, pixels, strict=True):
            keep(number, picture)


def _difference(shown: NDArray[np.float32], timeline: Timeline) -> str | None:
    """How decord's idea of the frames differs from the file's, if it does."""
    if len(shown) != len(timeline):
        return f"decord sees {len(shown)} frames, the file has {len(timeline)}"
    # It keeps single precision, so that late frames are off by a little.
    slack = max(timeline.period_s / 4, float(np.abs(timeline.times_s).max()) * 1e-6)
    if np.abs(shown - timeline.times_s).max() > slack:
        return "decord shows its frames at other times"
    return None


def _too_large(shape: tuple[int, ...]) -> str | None:
    if min(shape[:2]) > LARGEST_SHORT_SIDE:
        return f"pictures of {shape[1]}x{shape[0]} are not scaled down by decord"
    return None


def _decode_on(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames that decode, in the order in which they are shown."""
    import av

    try:
        for packet in container.demux(stream):
            try:
                yield from stream.decode(packet)
            except av.error.FFmpegError:
                continue
    except av.error.FFmpegError as err:
        raise CorruptVideoError(str(err)) from err


class _Converter:
    """Turns decoded frames into pixels as they are to be looked at, all of one size."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        if self._size is None:
            # A later change of size (adaptive streams do that) is scaled to the first.
            shrink = min(1.0, LARGEST_SHORT_SIDE / min(frame.width, frame.height))
            self._size = round(frame.width * shrink), round(frame.height * shrink)
        width, height = self._size
        smaller = width < frame.width
        rgb = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation="AREA" if smaller else None
        )
        pixels = rgb.to_ndarray().astype(np.uint8, copy=False)
        turns = clockwise(frame.rotation) // 90
        return np.rot90(pixels, k=-turns) if turns else pixels
