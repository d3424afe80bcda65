"""Display matrices: pictures come turned and mirrored as players show them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from coinml import media
from coinml.errors import InvalidInputError
from coinml.media.reencoding import reencode
from tests.helpers.drawn_videos import draw
from tests.helpers.numbered_frames import SIZE

SPEC = media.ClipSpec(clips=2, frames=4, stride=3)
ONE = 0x10000
WIDTH, HEIGHT = SIZE[1], SIZE[0]

Change = Callable[[np.ndarray], np.ndarray]

# The matrix (a, b, c, d) sends column x and row y to a x + c y and b x + d y.
MATRICES: dict[str, tuple[tuple[int, int, int, int], Change]] = {
    "none": ((1, 0, 0, 1), lambda p: p),
    "turned by 90": ((0, 1, -1, 0), lambda p: np.rot90(p, k=-1)),
    "turned by 180": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "turned by 270": ((0, -1, 1, 0), lambda p: np.rot90(p, k=1)),
    "left and right exchanged": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "transposed": ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    "transposed the other way": ((0, -1, -1, 0), lambda p: p[::-1, ::-1].swapaxes(0, 1)),
}


def with_matrix(plain: Path, path: Path, matrix: tuple[int, int, int, int]) -> Path:
    a, b, c, d = (ONE * value for value in matrix)
    content = plain.read_bytes()
    at = content.index(
        struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), content.index(b"tkhd")
    )
    # The picture is moved back to where columns and rows begin at zero.
    shift_x = ONE * WIDTH * (a < 0) + ONE * HEIGHT * (c < 0)
    shift_y = ONE * WIDTH * (b < 0) + ONE * HEIGHT * (d < 0)
    new = struct.pack(">9i", a, b, 0, c, d, 0, shift_x, shift_y, 1 << 30)
    path.write_bytes(content[:at] + new + content[at + 36 :])
    return path


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("name", MATRICES)
def test_every_display_matrix_is_applied(tmp_path: Path, name: str, ending: str) -> None:
    matrix, change = MATRICES[name]
    plain = draw(tmp_path / f"plain.{ending}", numbers=range(7, 67))
    path = with_matrix(plain, tmp_path / f"a.{ending}", matrix)
    stored, upright = media.sample(plain, SPEC), media.sample(path, SPEC)
    changed = np.array([[change(frame) for frame in clip] for clip in stored.frames])
    np.testing.assert_array_equal(upright.frames, changed)
    info = media.probe(path)
    assert (info.height, info.width) == changed.shape[2:4]
    assert info.mirrored == (np.linalg.det(np.reshape(matrix, (2, 2))) < 0)
    again = media.sample(reencode(path, tmp_path / f"again.{ending}", rows=48), SPEC)
    assert np.abs(again.frames.astype(int) - changed).mean() < 8
    if info.mirrored:
        pytest.importorskip("decord")
        with pytest.raises(InvalidInputError, match="mirrored"):
            media.sample(path, SPEC, decoder="decord")


def test_pixels_that_are_not_square_stay_as_they_are_stored(tmp_path: Path) -> None:
    plain = draw(tmp_path / "plain.mp4", numbers=range(60))
    path = tmp_path / "wide.mp4"
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.sample_aspect_ratio = Fraction(4, 3)
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    with av.open(str(path)) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)
    np.testing.assert_array_equal(media.sample(path, SPEC).frames, media.sample(plain, SPEC).frames)
    assert (media.probe(path).width, media.probe(path).height) == (WIDTH, HEIGHT)


def test_frames_with_side_data_that_pyav_does_not_know_are_read(tmp_path: Path) -> None:
    # FFmpeg's TIFF decoder gives each frame its Exif data.
    path = draw(tmp_path / "a.mov", "tiff", numbers=range(40), pix_fmt="rgb24")
    with av.open(str(path)) as container, pytest.raises(ValueError, match="is not a valid"):
        list(next(container.decode(video=0)).side_data)
    assert media.sample(path, SPEC).frames_substituted == 0
    assert media.probe(path).rotation == 0
