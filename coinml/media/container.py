"""Opening a file with PyAV, and what its errors mean here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from coinml.errors import CorruptVideoError, InvalidInputError, LocalError
from coinml.media.records import MediaInfo

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

logger = logging.getLogger(__name__)

# A playlist that poses as a video must not make this machine ask others.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}
# FFmpeg also plays text, pictures and lists of other files.
_NOT_VIDEO = {"tty", "image2", "concat", "hls", "dash", "lavfi"}


def probe(path: str | Path) -> MediaInfo:
    """Read what the header says; no frame is decoded, save one where the size needs it.

    Raises:
        CorruptVideoError: The file does not open or has no video.
        InvalidInputError: There is no such file.
    """
    with open_video(path) as (container, stream):
        rotation = header_rotation(container, stream)
        width, height = stream.codec_context.width, stream.codec_context.height
        if rotation in (90, 270):
            width, height = height, width
        return MediaInfo(
            duration_s=duration_of(container, stream),
            width=width,
            height=height,
            fps=float(stream.average_rate) if stream.average_rate else None,
            frames_claimed=stream.frames or None,
            codec=stream.codec_context.name,
            rotation=rotation,
        )


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and pick its video stream; one decoding thread.

    Errors of PyAV inside the block are translated too.

    Raises:
        CorruptVideoError: The file does not open, has no video or does not decode.
        InvalidInputError: There is no such file.
        LocalError: This machine does not let us read it.
    """
    import av

    # The libraries below write to stderr of their own accord; what matters comes as errors.
    av.logging.set_level(av.logging.PANIC)
    name = Path(path).name
    try:
        # An absolute path: FFmpeg takes what stands before a colon for a protocol.
        with av.open(
            str(Path(path).absolute()), options=_OPEN_OPTIONS, metadata_errors="replace"
        ) as container:
            if _NOT_VIDEO & set(container.format.name.split(",")) or "_pipe" in (
                container.format.name
            ):
                raise CorruptVideoError(f"{name}: is not a video ({container.format.name})")
            # The cover picture of a song is a video stream too.
            cover = av.stream.Disposition.attached_pic
            streams = (s for s in container.streams.video if not s.disposition & cover)
            stream = next(streams, None)
            if stream is None:
                raise CorruptVideoError(f"{name}: no video stream")
            if not stream.codec_context:
                raise CorruptVideoError(f"{name}: no decoder for its video")
            # Parallelism is over videos; a thread here would only delay errors.
            stream.codec_context.thread_count = 1
            yield container, stream
    except (FileNotFoundError, IsADirectoryError) as err:
        raise InvalidInputError(f"{path}: no such file") from err
    except MemoryError as err:
        raise LocalError(f"{path}: out of memory") from err
    except (av.error.FFmpegError, OSError) as err:
        if isinstance(err, PermissionError) and not os.access(path, os.R_OK):
            raise LocalError(f"{path}: may not be read here") from err
        raise CorruptVideoError(f"{name}: {describe(err)}") from err


def listen_to(container: InputContainer, stream: VideoStream) -> None:
    """Leave the other streams' packets unread where the container allows that."""
    import av

    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all


def describe(err: BaseException) -> str:
    """A library's error in one short line."""
    text = getattr(err, "strerror", None) or str(err) or type(err).__name__
    return text.splitlines()[0][:200]


def duration_of(container: InputContainer, stream: VideoStream) -> float | None:
    """The length in seconds that the header states, if it does."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else None


def header_rotation(container: InputContainer, stream: VideoStream) -> int:
    """Clockwise degrees for display, from the first frame's display matrix."""
    import av

    try:
        for index, packet in enumerate(container.demux(stream)):
            for frame in stream.decode(packet):
                return clockwise(frame.rotation)
            if index > 64:
                break
    except av.error.FFmpegError:
        logger.debug("no first frame to read a rotation from", exc_info=True)
    return 0


def clockwise(rotation: int) -> int:
    """FFmpeg's counter-clockwise angle (-180 to 180) as clockwise quarter turns in degrees.

    A broken display matrix (the angle is then far out of range) means no rotation.
    """
    if not -360 <= rotation <= 360:
        return 0
    return round(-rotation / 90) % 4 * 90
