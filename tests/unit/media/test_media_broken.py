"""Verdicts and clips of synthetic files that are truncated, damaged or unusual."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest

from coinml import media
from coinml.errors import CorruptVideoError
from tests.helpers.numbered_frames import SIZE, numbered

SPEC = media.ClipSpec(clips=3, frames=4, stride=3)


def encode(
    path: Path,
    codec: str,
    *,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] = SIZE[:2],
    pix_fmt: str = "yuv420p",
    count: int = 120,
) -> Path:
    """Write frames with any codec and options of FFmpeg."""
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        for number, pixels in enumerate(numbered(count)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(width=size[1], height=size[0], format=pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    """All frames by a full decode."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def checked_verdict(path: Path) -> str:
    """The verdict, after asserting that it and the clips agree with a full decode."""
    claimed, decoded, failed = None, 0, False
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            claimed = stream.frames or None
            for packet in container.demux(stream):
                try:
                    decoded += len(packet.decode())
                except av.error.FFmpegError:
                    failed = True
    except (av.error.FFmpegError, IndexError):
        failed = True
    verdict = media.check(path, deadline_s=None)
    assert (verdict.frames_decoded, verdict.frames_claimed) == (decoded, claimed)
    if not decoded:
        assert verdict.verdict == "unusable"
    elif failed or decoded < (claimed or 0):
        assert verdict.verdict == "damaged"
    assert (verdict.reason is None) == (verdict.verdict == "ok")
    for snap in ("exact", "keyframe"):
        spec = media.ClipSpec(clips=3, frames=4, stride=3, snap=snap)
        if verdict.verdict == "unusable":
            with pytest.raises(CorruptVideoError, match=path.name):
                media.sample(path, spec, decoder="pyav")
        else:
            clips = media.sample(path, spec, decoder="pyav")
            assert clips.frames.shape[:2] == (3, 4)
            assert (np.diff(clips.timestamps_s, axis=1) >= 0).all()
    return verdict.verdict


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.mp4", {"movflags": "faststart"}, {"unusable", "damaged"}),
        ("a.mov", {}, {"unusable"}),
        # All frames decode where only the index at the end is cut off.
        ("a.avi", {}, {"unusable", "damaged", "ok"}),
        # These formats state no number of frames, so a truncated file can look complete.
        ("a.mkv", {}, {"unusable", "damaged", "ok"}),
        ("a.ts", {}, {"unusable", "ok"}),
    ],
)
def test_a_truncated_file_gets_the_right_verdict(
    tmp_path: Path, name: str, options: dict[str, str], expected: set[str]
) -> None:
    whole = encode(tmp_path / f"whole-{name}", "libx264", container_options=options)
    assert checked_verdict(whole) == "ok"
    content = whole.read_bytes()
    path = tmp_path / name
    verdicts = set()
    for place in range(30):
        path.write_bytes(content[: len(content) * place // 30])
        verdicts.add(checked_verdict(path))
    assert verdicts == expected


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_flipped_bits_and_holes_get_the_right_verdict(tmp_path: Path, name: str) -> None:
    content = encode(tmp_path / f"whole-{name}", "libx264").read_bytes()
    rng = random.Random(0)
    path = tmp_path / name
    verdicts = []
    for flips in (1, 10, 100, 1000):
        damaged = bytearray(content)
        for _ in range(flips):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        verdicts.append(checked_verdict(path))
    damaged = bytearray(content)
    damaged[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(damaged)
    verdicts.append(checked_verdict(path))
    assert "ok" not in verdicts[2:4]


UNUSUAL = {
    "open.mp4": ("libx264", {"options": {"g": "25", "x264-params": "open-gop=1"}}),
    "open.ts": ("libx264", {"options": {"g": "25", "x264-params": "open-gop=1"}}),
    "refresh.mp4": ("libx264", {"options": {"x264-params": "intra-refresh=1:keyint=25"}}),
    "refresh.ts": ("libx264", {"options": {"x264-params": "intra-refresh=1:keyint=25"}}),
    "fields.ts": ("libx264", {"options": {"g": "25", "x264-params": "tff=1"}}),
    "pieces.mp4": ("libx264", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "odd.mkv": ("libx264", {"size": (45, 63), "pix_fmt": "yuv444p"}),
    "grey.mp4": ("libx264", {"pix_fmt": "gray"}),
    "ten.mp4": ("libx264", {"pix_fmt": "yuv420p10le"}),
    "open.mkv": ("libx265", {"options": {"x265-params": "keyint=25:open-gop=1:log-level=none"}}),
    "old.avi": ("mpeg4", {"options": {"g": "20", "bf": "2"}}),
    "old.mpg": ("mpeg2video", {"options": {"g": "15", "bf": "2"}}),
    "new.webm": ("libvpx-vp9", {"options": {"g": "25", "cpu-used": "8", "lag-in-frames": "16"}}),
    "stills.avi": ("mjpeg", {"pix_fmt": "yuvj420p"}),
    "moving.gif": ("gif", {"pix_fmt": "rgb8", "count": 40}),
    "one.mp4": ("libx264", {"count": 1}),
    "bare.h264": ("libx264", {}),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_files_are_sampled_correctly(tmp_path: Path, name: str) -> None:
    codec, how = UNUSUAL[name]
    path = encode(tmp_path / name, codec, **how)
    assert checked_verdict(path) == "ok"
    own = {frame.tobytes() for frame in frames_of(path)}
    for snap in ("exact", "keyframe"):
        clips = media.sample(path, media.ClipSpec(clips=3, frames=4, stride=3, snap=snap))
        assert clips.frames_substituted == 0
        assert {frame.tobytes() for clip in clips.frames for frame in clip} <= own


def test_frames_are_scaled_to_the_first_size(tmp_path: Path) -> None:
    parts = [
        encode(tmp_path / "1.ts", "libx264"),
        encode(tmp_path / "2.ts", "libx264", size=(72, 96)),
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert checked_verdict(path) == "ok"
    assert media.sample(path, SPEC).frames.shape == (3, 4, *SIZE)


@pytest.mark.parametrize("snap", ["exact", "keyframe"])
def test_clips_are_deterministic(tmp_path: Path, snap: str) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(200), gop=30, b_frames=3)
    copy = tmp_path / "another name.mkv.mp4"
    copy.write_bytes(path.read_bytes())
    spec = media.ClipSpec(clips=4, snap=snap)  # type: ignore[arg-type]
    extent = {"start_s": 1.0, "end_s": 7.0}
    first = media.sample(path, spec, decoder="pyav", **extent)
    others = [media.sample(copy, spec, **extent)]
    if find_spec("decord"):
        others.append(media.sample(path, spec, decoder="decord", **extent))
    for workers in (1, 3):
        with media.DecodePool(workers=workers) as pool:
            futures = [pool.submit_sample(p, spec, **extent) for p in (copy, path, copy)]
            others += [future.result() for future in reversed(futures)]
    assert len(others) >= 7
    for other in others:
        np.testing.assert_array_equal(other.timestamps_s, first.timestamps_s)
        np.testing.assert_array_equal(other.frames, first.frames)
