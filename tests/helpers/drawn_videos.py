"""Small video files of unusual structure, drawn from numbered frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from coinml import media
from tests.helpers.numbered_frames import SIZE, number_of, numbered

FPS = 25
X264_B_FRAMES = {"x264-params": "bframes=2:b-adapt=0:scenecut=0:keyint=30:min-keyint=30"}
_OPEN = "bframes=3:b-adapt=0:scenecut=0:keyint=30:min-keyint=30:open-gop=1"
X264_OPEN = {"x264-params": _OPEN}
X265_OPEN = {"x265-params": f"{_OPEN}:log-level=none"}


def draw(
    path: Path,
    codec: str = "libx264",
    *,
    numbers: Iterable[int] = range(120),
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    times_s: Sequence[float] | None = None,
    container_format: str | None = None,
) -> Path:
    """Encode the frames of these numbers, at 25 a second or at the given times."""
    pictures = numbered(256)
    tick = Fraction(1, 1000)
    with av.open(str(path), "w", container_format, options=container_options) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width = SIZE[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.thread_count = 1
        if times_s is not None:
            stream.codec_context.time_base = tick
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(pictures[number], format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.time_base = Fraction(1, FPS) if times_s is None else tick
            frame.pts = place if times_s is None else round(times_s[place] / tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy_from(
    source: Path,
    target: Path,
    *,
    start_s: float | None = None,
    key: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Copy the packets from the `key`-th key frame on; what lies before `start_s` is hidden."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options) as new:
        stream = old.streams.video[0]
        copied = new.add_stream_from_template(stream)
        keys = -1
        shift = None if start_s is None else round(start_s / stream.time_base)
        for packet in old.demux(stream):
            if packet.dts is None:
                continue
            keys += packet.is_keyframe
            if keys < key:
                continue
            shift = packet.pts if shift is None else shift
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copied
            new.mux(packet)
    return target


def mux_avi(path: Path, codec: str, chunks: Iterable[tuple[bytes, bool]]) -> Path:
    """Write chunks, one a frame, as AVI has them: without presentation times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = SIZE[:2]
        stream.pix_fmt = "yuv420p"
        if codec == "libx264":
            stream.codec_context.options = {"x264-params": "annexb=1:log-level=none"}
        for number, (content, is_key) in enumerate(chunks):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, FPS)
            packet.pts = packet.dts = number
            packet.is_keyframe = is_key
            container.mux(packet)
    return path


def chunks_of(path: Path, container_format: str) -> list[tuple[bytes, bool]]:
    """The packets of an elementary stream, and which are key frames."""
    with av.open(str(path), format=container_format) as container:
        return [(bytes(p), p.is_keyframe) for p in container.demux(video=0) if p.size]


def numbers_in(clips: media.SampledClips) -> np.ndarray:
    """int (clips, frames): the numbers that the frames tell."""
    return np.array([[number_of(frame) for frame in clip] for clip in clips.frames])
