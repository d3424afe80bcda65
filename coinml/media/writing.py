"""Writing a small H.264 file from frames."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinml.errors import InvalidInputError, LocalError
from coinml.runtime.atomic_files import written_whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def write_video(
    path: str | Path,
    frames: Iterable[NDArray[np.uint8]],
    *,
    fps: float = 25,
    codec: str = "libx264",
    crf: int = 23,
    gop: int | None = None,
    b_frames: int | None = None,
    preset: str = "veryfast",
    times_s: Iterable[float] | None = None,
) -> Path:
    """Encode frames into a file; the container follows from the path's extension.

    The same frames and options give the same bytes. The file appears under its name when it is
    complete.

    Args:
        path: Path of the file.
        frames: uint8 (height, width, 3) each, RGB, all of one size with even sides.
        fps: Frames per second.
        codec: FFmpeg's name of the encoder.
        crf: Constant rate factor of x264, 0 (lossless) to 51.
        gop: Greatest distance between key frames, in frames; the encoder's default if None.
        b_frames: Number of B-frames between references; the encoder's default if None.
        preset: Speed preset of x264.
        times_s: Presentation time of each frame in seconds, increasing, for a variable rate or a
            start other than zero; `fps` is then only written to the header.

    Returns:
        The path.

    Raises:
        InvalidInputError: There are no frames, or they differ in size or have odd sides.
        LocalError: The file cannot be written here.
    """
    import av

    target = Path(path)
    options = {"crf": str(crf), "preset": preset} if codec == "libx264" else {}
    if gop is not None:
        options["g"] = str(gop)
    if b_frames is not None:
        options["bf"] = str(b_frames)
    try:
        # Not flushed to the disk: a video that is lost in a power cut is drawn again.
        with (
            written_whole(target, durable=False) as partial,
            av.open(str(partial.absolute()), "w") as container,
        ):
            rate = Fraction(fps).limit_denominator(65535)
            stream = container.add_stream(codec, rate=rate, options=options)
            _encode(container, stream, frames, times_s)
    except (av.error.FFmpegError, OSError) as err:
        raise LocalError(f"{target}: cannot be written: {err}") from err
    return target


def _encode(
    container: Any,
    stream: Any,
    frames: Iterable[NDArray[np.uint8]],
    times_s: Iterable[float] | None,
) -> None:
    import av

    times = None if times_s is None else iter(times_s)
    tick = Fraction(1, 90_000)
    shape: tuple[int, ...] | None = None
    for index, pixels in enumerate(frames):
        if shape is None:
            shape = pixels.shape
            if len(shape) != 3 or shape[2] != 3 or shape[0] % 2 or shape[1] % 2:
                raise InvalidInputError(
                    f"a frame is (height, width, 3) with even sides, not {shape}"
                )
            stream.height, stream.width = shape[:2]
            stream.pix_fmt = "yuv420p"
            # The bytes depend on the number of threads; one is as fast for small frames.
            stream.codec_context.thread_count = 1
            if times is not None:
                stream.codec_context.time_base = tick
        elif pixels.shape != shape:
            raise InvalidInputError(f"frame {index} is {pixels.shape}, the first was {shape}")
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        if times is None:
            frame.pts, frame.time_base = index, 1 / stream.codec_context.rate
        else:
            frame.pts, frame.time_base = round(next(times) / tick), tick
        container.mux(stream.encode(frame))
    if shape is None:
        raise InvalidInputError("there are no frames to write")
    container.mux(stream.encode(None))
