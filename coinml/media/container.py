"""Opening a file with PyAV, and translating PyAV's errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import CorruptVideoError, LocalError
from coinml.media.film_stream import film_of
from coinml.media.open_file import OpenFile, VideoPath, from_the_start, opened
from coinml.media.orientation import Orientation, orientation_of
from coinml.media.picture_bounds import MAX_PIXELS, check_size
from coinml.media.records import MediaInfo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

# A playlist that is named like a video must open neither other files nor network connections.
_OPEN_OPTIONS = {"protocol_whitelist": "fd"}
_DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}
# FFmpeg also opens text, images and lists of other files.
_NOT_VIDEO = {"tty", "image2", "concat", "hls", "dash", "lavfi"}


# A header also counts a late start and other streams, and rounds.
_SLACK, _SLACK_S = 0.1, 0.5


def probe(path: VideoPath) -> MediaInfo:
    """Read header and packets; only the first frame is decoded, for the orientation.

    Raises:
        CorruptVideoError: The file does not open or has no video.
        InvalidInputError: There is no such file.
    """
    with open_video(path) as (container, stream):
        orientation = header_orientation(container, stream)
        width, height = stream.codec_context.width, stream.codec_context.height
        if orientation.exchanges_sides:
            width, height = height, width
        info = MediaInfo(
            duration_s=duration_of(container, stream),
            width=width,
            height=height,
            fps=float(stream.average_rate) if stream.average_rate else None,
            frames_claimed=stream.frames or None,
            codec=stream.codec_context.name,
            rotation=orientation.clockwise,
            mirrored=orientation.mirrored,
        )
    film_s = _packets_length_s(path, period_s=1 / (info.fps or 25))
    stated_s = info.duration_s
    if film_s is None or (
        stated_s is not None and abs(film_s - stated_s) <= max(_SLACK_S, _SLACK * stated_s)
    ):
        return info
    return replace(info, duration_s=round(film_s, 3))


def _packets_length_s(path: VideoPath, *, period_s: float) -> float | None:
    """The film's length by its packets' times; None if they have none."""
    import av

    from coinml.media.time_stamps import film_length_s

    times_s: list[float] = []
    with open_video(path) as (container, stream):
        listen_to(container, stream)
        tick = stream.time_base
        try:
            for packet in container.demux(stream):
                # In order of decoding: what goes back is another recording.
                ticks = packet.pts if packet.dts is None else packet.dts
                if packet.size and ticks is not None and tick and not packet.is_discard:
                    times_s.append(float(ticks * tick))
        except av.error.FFmpegError:
            pass  # A truncated file: use the packets read so far.
    return film_length_s(times_s, period_s=period_s) if times_s else None


@contextmanager
def open_video(path: VideoPath) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream, with one decoding thread.

    Errors of PyAV inside the block are translated too.

    Raises:
        CorruptVideoError: The file does not open, has no video or does not decode.
        InvalidInputError: There is no such file.
        LocalError: The file may not be read, or memory ran out.
    """
    import av

    # FFmpeg's libraries write to stderr by themselves; errors arrive as exceptions.
    av.logging.set_level(av.logging.PANIC)
    name = Path(path).name
    try:
        with opened(path) as file, _container(file) as container:
            if _NOT_VIDEO & set(container.format.name.split(",")) or "_pipe" in (
                container.format.name
            ):
                raise CorruptVideoError(f"{name}: is not a video ({container.format.name})")
            stream = film_of(container, partial(_container, file))
            if stream is None:
                raise CorruptVideoError(f"{name}: no video stream")
            if not stream.codec_context:
                raise CorruptVideoError(f"{name}: no decoder for its video")
            context = stream.codec_context
            check_size(context.width, context.height, name)
            # For pictures of another size than the header states.
            context.options = {**context.options, **_DECODER_OPTIONS}
            # Videos are decoded in parallel; more threads per video would only delay errors.
            context.thread_count = 1
            yield container, stream
    except MemoryError as err:
        if isinstance(path, OpenFile):
            # A decoding process has a limit of its own.
            raise CorruptVideoError(f"{name}: exceeds the memory limit") from err
        raise LocalError(f"{path}: out of memory") from err
    except (av.error.FFmpegError, OSError) as err:
        raise CorruptVideoError(f"{name}: {describe(err)}") from err


@contextmanager
def _container(file: OpenFile) -> Iterator[InputContainer]:
    """FFmpeg reads the descriptor, so that it opens no path at all."""
    import av

    options = {**_OPEN_OPTIONS, **_DECODER_OPTIONS, "fd": str(file.descriptor)}
    with (
        from_the_start(file),
        av.open("fd:", options=options, metadata_errors="replace") as container,
    ):
        yield container


def listen_to(container: InputContainer, stream: VideoStream) -> None:
    """Skip the packets of other streams where the container allows that."""
    import av

    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all


def frames_of(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """All frames that decode, in the order in which the decoder gives them."""
    import av

    try:
        for packet in container.demux(stream):
            try:
                yield from stream.decode(packet)
            except av.error.FFmpegError:
                continue
    except av.error.FFmpegError:
        logger.debug("reading ends early", exc_info=True)


def describe(err: BaseException) -> str:
    """The first line of a library's error, at most 200 characters."""
    text = getattr(err, "strerror", None) or str(err) or type(err).__name__
    return text.splitlines()[0][:200]


def duration_of(container: InputContainer, stream: VideoStream) -> float | None:
    """The length in seconds by the header, if stated."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None


def header_orientation(container: InputContainer, stream: VideoStream) -> Orientation:
    """The orientation of the first frame."""
    import av

    try:
        for index, packet in enumerate(container.demux(stream)):
            for frame in stream.decode(packet):
                return orientation_of(frame)
            if index > 64:
                break
    except av.error.FFmpegError:
        logger.debug("no first frame to read an orientation from", exc_info=True)
    return Orientation()
