"""Writing, probing, checking and sampling of synthetic files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from coinml import media
from coinml.errors import CorruptVideoError, InvalidInputError, LocalError
from coinml.media.clip_placement import place_clips
from coinml.media.pyav_decoder import PyavDecoder
from coinml.media.timeline import read_timeline
from tests.helpers.numbered_frames import SIZE, all_frames, number_of, numbered


def test_importing_media_imports_no_decoder() -> None:
    code = (
        "import sys, coinml.media; "
        "print([m for m in ('numpy', 'av', 'decord', 'torch', 'pyarrow') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_sampling_imports_only_the_decoder_that_is_used(tmp_path: Path) -> None:
    media.write_video(tmp_path / "a.mp4", numbered(30))
    code = (
        "import sys; from coinml import media; media.sample(sys.argv[1]); "
        "print([m for m in ('decord', 'torchcodec', 'torch') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.mp4")]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_written_video_contains_its_frames(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(30), fps=12.5)
    assert [number_of(frame) for frame in all_frames(path).values()] == list(range(30))
    info = media.probe(path)
    assert (info.width, info.height, info.fps, info.frames_claimed) == (64, 48, 12.5, 30)
    assert info.duration_s == pytest.approx(2.4)
    assert (info.codec, info.rotation) == ("h264", 0)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_the_same_frames_give_the_same_file(tmp_path: Path) -> None:
    digests = {
        hashlib.sha256(media.write_video(tmp_path / name, numbered(20)).read_bytes()).hexdigest()
        for name in ("a.mp4", "b.mp4")
    }
    assert len(digests) == 1


def test_frames_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no frames"):
        media.write_video(tmp_path / "a.mp4", [])
    with pytest.raises(InvalidInputError, match="even"):
        media.write_video(tmp_path / "a.mp4", [np.zeros((5, 8, 3), np.uint8)])
    with pytest.raises(InvalidInputError, match="frame 1"):
        media.write_video(
            tmp_path / "a.mp4", [np.zeros((6, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)]
        )
    with pytest.raises(LocalError):
        media.write_video(tmp_path / "nowhere" / "a.mp4", numbered(2))
    assert list(tmp_path.iterdir()) == []


def test_an_intact_file_is_ok_and_a_missing_one_an_input_error(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(30))
    verdict = media.check(path)
    assert verdict.as_dict() == {
        "file": str(path),
        "verdict": "ok",
        "frames_claimed": 30,
        "frames_decoded": 30,
        "reason": None,
    }
    assert verdict.duration_s == pytest.approx(30 / 25)
    for deadline_s in (None, 20):
        with pytest.raises(InvalidInputError, match="no such file"):
            media.check(tmp_path / "b.mp4", deadline_s=deadline_s)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_truncated_file_is_not_ok(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, SIZE, dtype=np.uint8) for _ in range(100)]
    path = media.write_video(tmp_path / f"a.{ending}", noise, gop=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    verdict = media.check(path, deadline_s=None)
    assert verdict.verdict == {"mp4": "unusable", "mkv": "damaged"}[ending]
    assert str(verdict.reason).startswith(path.name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.txt", b"FFmpeg would show these letters as a film.\n" * 200),
        ("page.mp4", b"<!doctype html><html><body>Sign in</body></html>"),
        ("list.mp4", b"ffconcat version 1.0\nfile a.mp4\n"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:10,\na.mp4\n#EXT-X-ENDLIST\n"),
        ("empty.mp4", b""),
        ("noise.webm", bytes(range(256)) * 400),
    ],
)
def test_files_that_are_no_videos_are_unusable(tmp_path: Path, name: str, content: bytes) -> None:
    media.write_video(tmp_path / "a.mp4", numbered(30))
    path = tmp_path / name
    path.write_bytes(content)
    verdict = media.check(path, deadline_s=None)
    assert (verdict.verdict, verdict.frames_decoded) == ("unusable", 0)
    assert str(verdict.reason).startswith(name)
    with pytest.raises(CorruptVideoError, match=name):
        media.sample(path)


def test_an_audio_file_with_a_cover_image_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("libmp3lame", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")))
        container.mux(cover.encode(None))
        for index in range(20):
            silence = np.zeros((2, 1152), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="stereo")
            frame.sample_rate, frame.pts = 44100, index * 1152
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    verdict = media.check(path, deadline_s=None)
    assert verdict.verdict == "unusable"
    assert "no video stream" in str(verdict.reason)


@pytest.mark.parametrize("name", ["-x.mp4", "http:x.mp4", "a b|c%03d.mp4", "\u00e9\u4e2d.mp4"])
def test_hostile_file_names_are_taken_literally(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    media.write_video(tmp_path / name, numbered(30))
    assert media.check(name, deadline_s=20).verdict == "ok"
    assert media.sample(name).frames_decoded == 9
    assert media.probe(name).frames_claimed == 30


@pytest.mark.parametrize("gop", [1, 5, 12, 250])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_sampled_frames_equal_those_of_a_full_decode(
    tmp_path: Path, gop: int, b_frames: int
) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(200), gop=gop, b_frames=b_frames)
    expected = all_frames(path)
    for decoder in ("pyav", "decord"):
        if decoder == "decord":
            pytest.importorskip("decord")
        clips = media.sample(path, decoder=decoder)
        assert clips.frames.shape == (8, 16, *SIZE)
        assert clips.decoder == decoder
        assert clips.frames_substituted == 0
        for clip, times in zip(clips.frames, clips.timestamps_s, strict=True):
            for frame, time_s in zip(clip, times, strict=True):
                np.testing.assert_array_equal(frame, expected[round(time_s, 6)])
        numbers = np.array([[number_of(frame) for frame in clip] for clip in clips.frames])
        assert (np.diff(numbers, axis=1) == 4).all()
        assert numbers[0, 0] < 20
        assert numbers[-1, -1] > 180


def test_frames_before_a_key_frame_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(256), gop=16, b_frames=0)
    timeline = read_timeline(path)
    kept: list[int] = []
    fed = 0

    class Counting:
        def __init__(self, *args: object) -> None:
            pass

        def __call__(self, frame: object) -> np.ndarray:
            return np.zeros(SIZE, np.uint8)

    monkeypatch.setattr("coinml.media.pyav_decoder._Converter", Counting)
    from coinml.media import pyav_decoder

    decode = pyav_decoder.RangeDecoder._decode

    def counted(self: pyav_decoder.RangeDecoder, packet: object) -> None:
        nonlocal fed
        fed += packet is not None
        decode(self, packet)

    monkeypatch.setattr(pyav_decoder.RangeDecoder, "_decode", counted)
    PyavDecoder().read(path, timeline, [3, 100, 250], lambda number, _: kept.append(number))
    assert kept == [3, 100, 250]
    assert fed < 40


def test_times_and_frames_follow_a_variable_rate_and_a_late_start(tmp_path: Path) -> None:
    # 50 frames at 20 fps, a gap of half a second, 50 frames at 10 fps.
    times = [7 + i * 0.05 if i < 50 else 10 + (i - 50) * 0.1 for i in range(100)]
    path = media.write_video(tmp_path / "a.mkv", numbered(100), fps=20, times_s=times)
    clips = media.sample(path, media.ClipSpec(clips=4, frames=8, stride=2))
    period = (times[-1] - times[0]) / 99
    for clip, shown in zip(clips.frames, clips.timestamps_s, strict=True):
        for position, (frame, time_s) in enumerate(zip(clip, shown, strict=True)):
            assert times[number_of(frame)] == pytest.approx(time_s, abs=2e-3)
            wanted = shown[0] + position * 2 * period
            nearest = min(abs(t - wanted) for t in times)
            assert abs(time_s - wanted) <= nearest + 2e-3


def test_clips_are_in_the_middle_of_equal_parts(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(240), fps=24)
    places = place_clips(read_timeline(path), media.ClipSpec(clips=4, frames=16, stride=2))
    middles = places.mean(axis=1)
    assert (np.diff(places, axis=1) == 2).all()
    np.testing.assert_allclose(np.diff(middles), (239 - 30) / 4, atol=1)
    np.testing.assert_allclose(middles.mean(), 239 / 2, atol=1)


def test_a_clip_lies_at_its_place(tmp_path: Path) -> None:
    timeline = read_timeline(media.write_video(tmp_path / "a.mp4", numbered(100)))
    firsts = [
        int(place_clips(timeline, media.ClipSpec(clips=1, frames=16, stride=2, place=place))[0, 0])
        for place in (0.0, 0.25, 1.0)
    ]
    # 100 frames, of which a clip spans 31.
    assert firsts == [0, 17, 69]
    with pytest.raises(InvalidInputError, match=r"place must be from 0 to 1, not 1\.5"):
        media.ClipSpec(place=1.5)


def test_an_extent_bounds_the_clips(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(250), fps=25)
    clips = media.sample(path, media.ClipSpec(clips=3), start_s=2.0, end_s=6.0)
    numbers = [number_of(frame) for clip in clips.frames for frame in clip]
    assert min(numbers) >= 50
    assert max(numbers) < 150
    with pytest.raises(InvalidInputError, match=r"10\.00 s long"):
        media.sample(path, start_s=11.0, end_s=12.0)


@pytest.mark.parametrize("count", [1, 2, 15, 40, 61])
def test_short_videos_follow_the_policy(tmp_path: Path, count: int) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(count))
    repeated = media.sample(path, media.ClipSpec(clips=2))
    numbers = [[number_of(frame) for frame in clip] for clip in repeated.frames]
    assert numbers == [[min(4 * i, count - 1) for i in range(16)]] * 2
    assert repeated.frames_substituted == 0
    assert repeated.frames_decoded == len(set(numbers[0]))
    wrapped = media.sample(path, media.ClipSpec(clips=1, short="wrap"))
    assert [number_of(frame) for frame in wrapped.frames[0]] == [4 * i % count for i in range(16)]
    if count < 61:
        with pytest.raises(InvalidInputError, match="a clip spans"):
            media.sample(path, media.ClipSpec(short="error"))


def test_a_frame_that_does_not_decode_is_substituted_and_counted(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(200), gop=10, b_frames=0)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        places = [(p.pos, p.size) for p in packets[100:140]]
    content = bytearray(path.read_bytes())
    for place, size in places:
        content[place : place + size] = b"\xff" * size
    path.write_bytes(content)
    assert media.check(path, deadline_s=None).verdict == "damaged"
    expected = all_frames_that_decode(path)
    clips = media.sample(path, decoder="pyav")
    for clip, times in zip(clips.frames, clips.timestamps_s, strict=True):
        for frame, time_s in zip(clip, times, strict=True):
            np.testing.assert_array_equal(frame, expected[round(time_s, 6)])


def all_frames_that_decode(path: Path) -> dict[float, np.ndarray]:
    found = {}
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                for frame in packet.decode():
                    found[round(float(frame.time), 6)] = frame.to_ndarray(format="rgb24")
            except av.error.FFmpegError:
                continue
    return found


def test_torchcodec_gives_the_same_frames(tmp_path: Path) -> None:
    if (found := media.decoders_here()["torchcodec"]).startswith("torchcodec"):
        pytest.skip(found)
    for ending in ("mp4", "mkv"):
        path = media.write_video(tmp_path / f"a.{ending}", numbered(200), gop=40, b_frames=3)
        for snap in ("exact", "keyframe"):
            theirs, ours = (
                media.sample(path, media.ClipSpec(snap=snap), decoder=decoder)
                for decoder in ("torchcodec", "pyav")
            )
            assert theirs.decoder == "torchcodec"
            np.testing.assert_array_equal(theirs.frames, ours.frames)
            np.testing.assert_array_equal(theirs.timestamps_s, ours.timestamps_s)
    (tmp_path / "b.mp4").write_bytes(path.read_bytes()[3000:])
    with pytest.raises(CorruptVideoError, match=r"b\.mp4"):
        media.sample(tmp_path / "b.mp4", decoder="torchcodec")


def test_a_decoder_that_does_not_load_is_a_local_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "torchcodec"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('no libavutil.so\\nand so on')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, name)
    path = media.write_video(tmp_path / "a.mp4", numbered(30))
    assert "shared libraries" in media.decoders_here()["torchcodec"]
    with pytest.raises(LocalError, match="torchcodec does not load here"):
        media.sample(path, decoder="torchcodec")
    assert media.sample(path).decoder == "pyav"


def test_auto_works_without_decord(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    path = media.write_video(tmp_path / "a.mp4", numbered(100))
    assert media.sample(path).decoder == "pyav"
    with pytest.raises(LocalError, match="decord is not installed"):
        media.sample(path, decoder="decord")


def test_unknown_options_are_refused_with_the_known_ones(
    tmp_path: Path, make_video: Callable[..., Path]
) -> None:
    path = make_video(tmp_path / "a.mp4")
    with pytest.raises(InvalidInputError, match="decord"):
        media.sample(path, decoder="vlc")
    with pytest.raises(InvalidInputError, match="repeat_last"):
        media.ClipSpec(short="loop")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="at least 1"):
        media.ClipSpec(clips=0)
