"""Files of which decord gives wrong pictures under the right times are not given to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coinml import media
from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media.pyav_decoder import PyavDecoder
from coinml.media.timeline import read_timeline
from tests.helpers.drawn_videos import X264_OPEN, X265_OPEN, copy_from, draw, numbers_in
from tests.helpers.numbered_frames import all_frames

SPEC = media.ClipSpec(clips=4, frames=8, stride=2)
CLOSED = {"x264-params": "keyint=30:scenecut=0:bframes=3:open-gop=0"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=50:bframes=0:scenecut=0"}
DEFAULT_X265 = {"x265-params": "keyint=40:log-level=none"}


def assert_own_frames(path: Path, decoder: str) -> None:
    expected = all_frames(path)
    clips = media.sample(path, SPEC, decoder=decoder)
    assert clips.decoder == {"auto": "pyav"}.get(decoder, decoder)
    assert clips.frames_substituted == 0
    for clip, times in zip(clips.frames, clips.timestamps_s, strict=True):
        for frame, time_s in zip(clip, times, strict=True):
            np.testing.assert_array_equal(frame, expected[round(time_s, 6)])


@pytest.mark.parametrize("ending", ["mp4", "mkv", "mov", "ts"])
@pytest.mark.parametrize(
    ("codec", "options", "reason"),
    [
        ("libx264", X264_OPEN, "open groups of pictures"),
        ("libx265", X265_OPEN, "open groups of pictures"),
        ("libx265", DEFAULT_X265, "open groups of pictures"),
        ("mpeg2video", {"g": "12", "bf": "2"}, "open groups of pictures"),
        ("libx264", REFRESH, "intra refresh"),
        ("libx264", CLOSED, None),
        ("mpeg4", {"g": "12"}, None),
    ],
    ids=str,
)
def test_decord_refuses_what_it_cannot_seek_in(
    tmp_path: Path, ending: str, codec: str, options: dict[str, str], reason: str | None
) -> None:
    path = draw(tmp_path / f"a.{ending}", codec, numbers=range(200), options=options)
    if ending == "ts":
        reason = "no exact seeking in mpegts"
    assert (read_timeline(path).needs_pyav or "").count(reason or "") > 0
    for decoder in ("auto", "pyav"):
        assert_own_frames(path, decoder)
    pytest.importorskip("decord")
    if reason is None:
        assert_own_frames(path, "decord")
        return
    with pytest.raises(InvalidInputError, match=reason) as refusal:
        media.sample(path, SPEC, decoder="decord")
    assert "try the decoder `auto`" in str(refusal.value)


def test_decord_refuses_a_file_with_hidden_frames(tmp_path: Path) -> None:
    full = draw(tmp_path / "full.mp4", options=CLOSED)
    path = copy_from(full, tmp_path / "trimmed.mp4", start_s=1.0)
    assert numbers_in(media.sample(path, SPEC)).min() >= 25
    pytest.importorskip("decord")
    with pytest.raises(InvalidInputError, match="edit list"):
        media.sample(path, SPEC, decoder="decord")


def test_auto_is_pyav_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = draw(tmp_path / "a.mp4", numbers=range(100))

    def broken(*_: object) -> None:
        raise CorruptVideoError("not for me")

    monkeypatch.setattr(PyavDecoder, "read", broken)
    for decoder in ("auto", "pyav"):
        with pytest.raises(CorruptVideoError, match="not for me"):
            media.sample(path, decoder=decoder)
    pytest.importorskip("decord")
    assert media.sample(path, decoder="decord").decoder == "decord"


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_clips_say_which_decoder_gave_the_pictures(tmp_path: Path, decoder: str) -> None:
    pytest.importorskip("av" if decoder == "pyav" else "decord")
    path = draw(tmp_path / "a.mkv", "mpeg2video", options={"flags": "+ildct+ilme", "g": "12"})
    assert media.sample(path, SPEC, decoder=decoder).decoder == decoder
