"""Which of a video's formats yt-dlp's own selector takes; nothing is downloaded."""

from __future__ import annotations

import pytest
from yt_dlp import YoutubeDL

from coinml.collection.download import FetchOptions
from coinml.collection.downloader_session import parameters

LANDSCAPE = ("256x144", "426x240", "640x360", "854x480", "1280x720")
UPRIGHT = ("144x256", "240x426", "360x640", "480x854", "720x1280")
SQUARE = ("144x144", "240x240", "360x360", "480x480", "720x720")


def taken(formats: list[str], *, max_height: int = 360) -> str:
    """The format taken of some like "360x640", "360x640-vp9" or "?x?"; the best comes last."""
    described = []
    for number, name in enumerate(formats):
        size, codec, sound = (name + ("-avc1-none", "-none", "")[name.count("-")]).split("-")
        width, height = (int(side) if side != "?" else None for side in size.split("x"))
        described.append(
            {
                "format_id": name,
                "url": f"http://127.0.0.1:9/{number}",
                "ext": "mp4",
                "width": width,
                "height": height,
                "vcodec": None if codec == "?" else codec,
                "acodec": None if sound == "?" else sound,
                "tbr": 100 * (number + 1),
            }
        )
    info = {"id": "a", "title": "a", "extractor": "a", "webpage_url": "http://127.0.0.1:9/a"}
    with YoutubeDL(parameters(FetchOptions(max_height=max_height))) as ydl:
        chosen = ydl.process_ie_result(
            {**info, "extractor_key": "A", "formats": described}, download=False
        )
    return str(chosen["format_id"])


@pytest.mark.parametrize(
    ("formats", "max_height", "expected"),
    [
        (LANDSCAPE, 360, "640x360"),
        (UPRIGHT, 360, "360x640"),
        (SQUARE, 360, "360x360"),
        (LANDSCAPE, 240, "426x240"),
        (UPRIGHT, 240, "240x426"),
        (UPRIGHT, 500, "480x854"),
        # All are larger than allowed: the smallest.
        (UPRIGHT[3:], 360, "480x854"),
        (SQUARE[3:], 360, "480x480"),
        # A wide film: the shorter side of its "480p" is 356.
        (("640x266", "854x356", "1280x534"), 360, "854x356"),
    ],
)
def test_the_shorter_side_is_capped(
    formats: tuple[str, ...], max_height: int, expected: str
) -> None:
    assert taken(list(formats), max_height=max_height) == expected
    # The order in which the source names them does not matter.
    assert taken(list(formats)[::-1], max_height=max_height) == expected


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        (["360x640-avc1-mp4a", "360x640-avc1", "360x640-vp9", "360x640-av01"], "360x640-avc1"),
        (["360x640-av01", "360x640-vp9"], "360x640-vp9"),
        # The picture's size comes first: 144 rows are too few for any encoder.
        (["144x256-avc1", "360x640-vp9"], "360x640-vp9"),
        (["240x426-avc1", "360x640-avc1-mp4a"], "360x640-avc1-mp4a"),
    ],
)
def test_h264_without_sound_is_preferred_within_a_size(formats: list[str], expected: str) -> None:
    assert taken(formats) == expected


@pytest.mark.parametrize(
    ("formats", "expected"),
    [
        # One side is known, as where a source only says "360p".
        (["?x144", "?x360", "?x720"], "?x360"),
        (["144x?", "360x?", "720x?"], "360x?"),
        # A known size is taken before an unknown one.
        (["?x?", "360x640"], "360x640"),
        (["?x?", "720x1280"], "720x1280"),
        # A direct file: one format, and nothing is known of it.
        (["?x?-?-?"], "?x?-?-?"),
        (["?x?-avc1-mp4a"], "?x?-avc1-mp4a"),
    ],
)
def test_formats_of_unknown_size_are_taken_where_there_is_no_other(
    formats: list[str], expected: str
) -> None:
    assert taken(formats) == expected
