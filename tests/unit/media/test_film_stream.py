"""Files with several video streams: the film is chosen, wherever it lies."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from coinml import media
from tests.helpers.drawn_videos import numbers_in
from tests.helpers.numbered_frames import numbered

FLAGS = av.stream.Disposition
NO_FLAG = FLAGS(0)
SPEC = media.ClipSpec(clips=3, frames=6, stride=2)


class Track(NamedTuple):
    """A video stream to write.

    Attributes:
        codec: FFmpeg's name of the encoder.
        size: Columns and rows.
        numbers: Its frames.
        flags: Its disposition.
    """

    codec: str
    size: tuple[int, int]
    numbers: range
    flags: av.stream.Disposition


def write(path: Path, *tracks: Track) -> Path:
    pictures = numbered(256)
    with av.open(str(path), "w") as container:
        streams = []
        for track in tracks:
            stream = container.add_stream(track.codec, rate=25)
            stream.width, stream.height = track.size
            stream.pix_fmt = "yuvj420p" if track.codec == "mjpeg" else "yuv420p"
            stream.disposition = track.flags
            streams.append(stream)
        for track, stream in zip(tracks, streams, strict=True):
            for place, number in enumerate(track.numbers):
                frame = av.VideoFrame.from_ndarray(pictures[number], format="rgb24")
                frame = frame.reformat(*track.size)
                frame.pts, frame.time_base = place, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


FILM = Track("libx264", (64, 48), range(120), FLAGS.default)
OTHER_FILM = FILM._replace(flags=NO_FLAG)
PREVIEW = Track("mjpeg", (32, 24), range(200, 201), NO_FLAG)
POSTER = Track("mjpeg", (320, 240), range(200, 201), FLAGS.default)
SMALL_FILM = Track("libx264", (32, 24), range(130, 250), NO_FLAG)


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    "tracks",
    [
        (PREVIEW, FILM),
        (FILM, PREVIEW),
        (POSTER, OTHER_FILM),
        (OTHER_FILM, POSTER),
        (SMALL_FILM, FILM),
        (SMALL_FILM._replace(flags=FLAGS.default), FILM),
        (PREVIEW, SMALL_FILM, FILM),
        (PREVIEW._replace(flags=FLAGS.attached_pic), OTHER_FILM),
        (POSTER._replace(flags=FLAGS.still_image), OTHER_FILM),
    ],
)
def test_the_film_is_chosen(tmp_path: Path, ending: str, tracks: tuple[Track, ...]) -> None:
    path = write(tmp_path / f"a.{ending}", *tracks)
    verdict = media.check(path, deadline_s=None)
    assert (verdict.verdict, verdict.frames_decoded) == ("ok", 120)
    info = media.probe(path)
    assert (info.width, info.height, info.codec) == (64, 48, "h264")
    numbers = numbers_in(media.sample(path, SPEC))
    assert (np.diff(numbers, axis=1) == 2).all()
    assert 0 <= numbers.min() < numbers.max() < 120


def test_a_stream_that_is_marked_as_default_is_the_film(tmp_path: Path) -> None:
    small = SMALL_FILM._replace(flags=FLAGS.default)
    path = write(tmp_path / "a.mkv", OTHER_FILM, small)
    assert media.probe(path).width == 32


def test_a_film_of_one_picture_is_a_film(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", PREVIEW)
    assert media.check(path, deadline_s=None).frames_decoded == 1
