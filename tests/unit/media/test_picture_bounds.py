"""Small files that state large pictures, long pictures, many frames or many streams."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from coinml import media
from coinml.errors import CorruptVideoError
from coinml.media.picture_bounds import check_size, kept_size
from tests.helpers.drawn_videos import chunks_of, mux_avi

SPEC = media.ClipSpec(clips=1, frames=4, stride=1)


def draw_plain(path: Path, size: tuple[int, int], codec: str = "libx264", frames: int = 6) -> Path:
    """A file of pictures of one colour each, (width, height)."""
    width, height = size
    layout = "gray" if codec == "png" else "yuv420p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, layout
        for number in range(frames):
            frame = av.VideoFrame(width, height, layout)
            for plane in frame.planes:
                plane.update(bytes([number * 9]) * plane.buffer_size)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("size", "codec", "reason"),
    [
        ((8192, 16), "libx264", "8192x16; sides of at most 20:1"),
        ((16, 8192), "libx264", "16x8192; sides of at most 20:1"),
        ((8800, 8800), "png", "Invalid argument"),
    ],
)
def test_a_small_file_of_huge_pictures_is_unusable(
    size: tuple[int, int], codec: str, reason: str, tmp_path: Path
) -> None:
    path = draw_plain(tmp_path / "bomb.mov", size, codec, frames=2)
    assert path.stat().st_size < 250_000
    with media.DecodePool() as pool:
        for verdict in (media.check(path, deadline_s=None), pool.check(path)):
            assert verdict.verdict == "unusable"
            assert reason in str(verdict.reason)
        with pytest.raises(CorruptVideoError, match=r"^bomb\.mov: "):
            pool.submit_sample(path, SPEC).result()
    with pytest.raises(CorruptVideoError):
        check_size(*size, "a.mp4")


def test_pictures_that_become_long_in_the_middle_are_found(tmp_path: Path) -> None:
    parts = [
        draw_plain(tmp_path / f"{number}.h264", size)
        for number, size in enumerate([(96, 64), (4096, 16)])
    ]
    for name, order in (("later", parts), ("first", parts[::-1])):
        chunks = [chunk for part in order for chunk in chunks_of(part, "h264")]
        path = mux_avi(tmp_path / f"{name}.avi", "libx264", chunks)
        with media.DecodePool() as pool:
            verdict = pool.check(path)
        assert verdict.verdict == "unusable"
        assert "pictures of 4096x16" in str(verdict.reason)


def test_clips_of_pictures_that_change_their_size_have_one_size(tmp_path: Path) -> None:
    parts = [
        draw_plain(tmp_path / f"{number}.h264", size)
        for number, size in enumerate([(96, 64), (4000, 2000)])
    ]
    chunks = [chunk for part in parts for chunk in chunks_of(part, "h264")]
    path = mux_avi(tmp_path / "a.avi", "libx264", chunks)
    assert media.sample(path, media.ClipSpec(clips=1, frames=8, stride=1)).frames.shape == (
        *(1, 8, 64, 96),
        3,
    )


def test_a_file_that_claims_very_many_frames_is_refused(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    content = bytearray(make_video(tmp_path / "a.mp4").read_bytes())
    frames = 0x30000000
    at = content.index(b"stsz") + 8
    content[at : at + 8] = struct.pack(">II", 1, frames)
    at = content.index(b"stts") + 12
    content[at : at + 4] = struct.pack(">I", frames)
    at = content.index(b"stsc") + 16
    content[at : at + 4] = struct.pack(">I", frames)
    path = tmp_path / "many.mp4"
    path.write_bytes(content)
    with media.DecodePool() as pool:
        assert pool.check(path).verdict == "unusable"
        with pytest.raises(CorruptVideoError):
            pool.submit_sample(path, SPEC).result()


def test_a_file_of_very_many_streams_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "streams.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("mpeg4", rate=25) for _ in range(250)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 16, 16, "yuv420p"
        for stream in streams:
            container.mux(stream.encode(av.VideoFrame(16, 16, "yuv420p")))
            container.mux(stream.encode(None))
    with media.DecodePool() as pool:
        assert pool.check(path).verdict == "ok"


def test_the_shape_of_a_pixel_has_no_effect(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 60_000
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert media.check(path, deadline_s=None).verdict == "ok"
    assert media.sample(path, SPEC).frames.shape == (1, 4, 48, 64, 3)


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        ((640, 360), (640, 360)),
        ((1920, 1080), (1920, 1080)),
        ((1080, 1920), (1080, 1920)),
        ((3840, 2160), (1920, 1080)),
        ((7680, 4320), (1920, 1080)),
        ((4320, 1080), (4320, 1080)),
        ((8192, 2048), (4320, 1080)),
        ((2000, 100), (2000, 100)),
        ((8000, 1000), (6109, 764)),
        ((16, 16), (16, 16)),
    ],
)
def test_ordinary_pictures_keep_their_size(size: tuple[int, int], kept: tuple[int, int]) -> None:
    check_size(*size, "a.mp4")
    assert kept_size(*size) == kept
