"""Which of a file's video streams is the film."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_LOOK_AHEAD = 1000
"""Packets that are read to tell a film from a single picture."""


def film_of(
    container: InputContainer, open_again: Callable[[], AbstractContextManager[InputContainer]]
) -> VideoStream | None:
    """Choose the film among the video streams; None if there are only cover images.

    Like FFmpeg: the stream that is marked as default, then the largest picture, then the most
    frames. Streams of a single picture or of thumbnails, and those without a decoder, come last.

    Args:
        container: It is not read.
        open_again: Opens the same file once more, to count packets where there is a choice.
    """
    import av

    flags = av.stream.Disposition
    aside = flags.timed_thumbnails | flags.still_image | flags.dependent
    # The cover image of an audio file is a video stream, too.
    streams = [s for s in container.streams.video if not s.disposition & flags.attached_pic]
    if len(streams) < 2:
        return next(iter(streams), None)
    with open_again() as other:
        packets = _count_packets(other, [stream.index for stream in streams])

    def rank(stream: VideoStream) -> tuple[int, ...]:
        context = stream.codec_context
        return (
            bool(context),
            min(packets[stream.index], 2),
            not stream.disposition & aside,
            bool(stream.disposition & flags.default),
            context.width * context.height if context else 0,
            stream.frames or packets[stream.index],
        )

    return max(streams, key=rank)


def _count_packets(container: InputContainer, streams: list[int]) -> Counter[int]:
    """Packets of each of the streams, until every one has two."""
    import av

    found: Counter[int] = Counter()
    try:
        for place, packet in enumerate(container.demux([container.streams[i] for i in streams])):
            found[packet.stream.index] += packet.size > 0
            if place > _LOOK_AHEAD or all(found[index] > 1 for index in streams):
                break
    except av.error.FFmpegError:
        pass
    return found
