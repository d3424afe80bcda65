"""Films with a palette: it comes with the first packet or between two, not with key frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coinml import media
from tests.helpers.drawn_videos import numbers_in
from tests.helpers.numbered_frames import SIZE, all_frames, numbered


def draw(path: Path, codec: str, *, new_palette_at: int | None = None) -> Path:
    """120 numbered frames in two colours, which a new palette exchanges."""
    palettes = np.full((2, 256, 4), 255, np.uint8)
    palettes[0, :2, 1:] = [[40] * 3, [220] * 3]
    palettes[1, :2, 1:] = [[220] * 3, [40] * 3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "12"})
        stream.height, stream.width, stream.pix_fmt = *SIZE[:2], "pal8"
        for number, pixels in enumerate(numbered(120)):
            changed = int(new_palette_at is not None and number >= new_palette_at)
            colours = (pixels[..., 0] > 128).astype(np.uint8) ^ changed
            frame = av.VideoFrame.from_ndarray((colours, palettes[changed]), format="pal8")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("snap", ["exact", "keyframe"])
@pytest.mark.parametrize("new_palette_at", [None, 30, 70])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("raw.avi", "rawvideo"),
        ("raw.mov", "rawvideo"),
        ("a.avi", "msrle"),
        ("a.mov", "smc"),
        ("zip.avi", "zmbv"),
        ("png.avi", "png"),
        ("a.gif", "gif"),
    ],
)
def test_frames_from_the_middle_have_their_colours(
    tmp_path: Path, name: str, codec: str, new_palette_at: int | None, snap: str
) -> None:
    path = draw(tmp_path / name, codec, new_palette_at=new_palette_at)
    expected = all_frames(path)
    assert media.check(path, deadline_s=None).verdict == "ok"
    spec = media.ClipSpec(clips=4, frames=6, stride=2, snap=snap)  # type: ignore[arg-type]
    for extent in ({}, {"start_s": 3.0, "end_s": 4.0}):
        clips = media.sample(path, spec, **extent)
        assert clips.frames_substituted == 0
        for clip, times in zip(clips.frames, clips.timestamps_s, strict=True):
            for frame, time_s in zip(clip, times, strict=True):
                np.testing.assert_array_equal(frame, expected[round(time_s, 6)])
        if new_palette_at is None:
            assert set(np.diff(numbers_in(clips), axis=1).ravel()) <= {1, 2, 3}
