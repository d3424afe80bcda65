"""Clips that begin at key frames, and frames that need not be decoded."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinml import media
from coinml.errors import InvalidInputError
from coinml.media.clip_placement import _assign, place_clips
from coinml.media.timeline import Timeline, count_timeline, read_timeline
from tests.helpers.numbered_frames import SIZE, all_frames, number_of, numbered

KEYFRAME = media.ClipSpec(snap="keyframe")


def smooth(count: int) -> list[np.ndarray]:
    """Frames without a scene cut, at which the encoder would insert a key frame."""
    still = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    still = still.repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(still, number, axis=1) for number in range(count)]


def key_times(path: Path) -> set[float]:
    with av.open(str(path)) as container:
        return {
            round(float(frame.time), 6) for frame in container.decode(video=0) if frame.key_frame
        }


def reference_times(path: Path) -> set[float]:
    """Times of the frames that FFmpeg's decoder treats as reference frames."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        return {round(float(frame.time), 6) for frame in container.decode(video=0)}


@pytest.mark.parametrize("gop", [10, 25])
@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts"])
def test_clips_begin_at_key_frames_and_consist_of_reference_frames(
    tmp_path: Path, gop: int, ending: str
) -> None:
    path = media.write_video(tmp_path / f"a.{ending}", numbered(250), gop=gop, b_frames=3)
    expected = all_frames(path)
    keys, references = key_times(path), reference_times(path)
    assert len(references) < 200
    spec = media.ClipSpec(snap="keyframe", clips=6)
    # decord reports other times for a transport stream's frames, and is refused.
    for decoder in ("pyav",) if ending == "ts" else ("pyav", "decord"):
        if decoder == "decord":
            pytest.importorskip("decord")
        clips = media.sample(path, spec, decoder=decoder)
        assert clips.frames_substituted == 0
        starts = [round(time_s, 6) for time_s in clips.timestamps_s[:, 0]]
        assert len(set(starts)) == 6
        assert set(starts) <= keys
        for clip, times in zip(clips.frames, clips.timestamps_s, strict=True):
            for position, (frame, time_s) in enumerate(zip(clip, times, strict=True)):
                np.testing.assert_array_equal(frame, expected[round(time_s, 6)])
                assert round(time_s, 6) in references
                assert abs(time_s - times[0] - position * 4 / 25) <= 2 / 25 + 1e-6
        places = media.sample(path, media.ClipSpec(clips=6)).timestamps_s[:, 0]
        # Key frames are a GOP apart, so the nearest is at most half a GOP away, at the end a GOP.
        assert np.abs(starts - places).max() <= gop / 25 + 1e-6


def test_a_key_frame_begins_at_most_one_clip(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(250), gop=20, b_frames=3)
    clips = media.sample(path, media.ClipSpec(snap="keyframe", clips=9, frames=4))
    starts = {round(time_s, 6) for time_s in clips.timestamps_s[:, 0]}
    assert len(starts) == 9
    assert starts <= key_times(path)


def test_clips_without_a_key_frame_begin_at_reference_frames(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", smooth(250), gop=90, b_frames=3)
    clips = media.sample(path, KEYFRAME)
    starts = [round(time_s, 6) for time_s in clips.timestamps_s[:, 0]]
    keys = key_times(path)
    assert keys == {0.0, 3.6, 7.2}
    # A clip of 61 frames fits after each of them.
    assert set(starts) & keys == keys
    assert len(set(starts)) == 8
    assert set(starts) <= reference_times(path)
    assert starts == sorted(starts)
    exact = media.sample(path).timestamps_s[:, 0]
    others = [i for i, start in enumerate(starts) if start not in keys]
    assert np.abs(np.array(starts) - exact)[others].max() <= 2 / 25 + 1e-6


def test_a_key_frame_too_close_to_the_end_begins_no_clip(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", smooth(120), gop=70)
    assert key_times(path) == {0.0, 2.8}
    times = media.sample(path, media.ClipSpec(snap="keyframe", clips=2)).timestamps_s
    assert times[0, 0] == 0
    # The exact start: at three quarters of the 59 frames at which a clip may begin.
    assert times[1, 0] == pytest.approx(44 / 25, abs=2 / 25)
    assert (np.diff(times, axis=1) > 0).all()


def test_clips_stay_within_the_extent(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(250), gop=12, b_frames=3)
    spec = media.ClipSpec(snap="keyframe", clips=4, frames=8)
    clips = media.sample(path, spec, start_s=2.0, end_s=6.0)
    numbers = [number_of(frame) for clip in clips.frames for frame in clip]
    assert min(numbers) >= 50
    assert max(numbers) < 150
    assert {round(t, 6) for t in clips.timestamps_s[:, 0]} <= key_times(path)
    # An extent within a group of pictures has no key frame at all.
    inner = media.sample(path, spec, start_s=0.08, end_s=0.44)
    assert {number_of(frame) for clip in inner.frames for frame in clip} <= set(range(2, 11))


@pytest.mark.parametrize("count", [1, 2, 15, 40, 61])
def test_short_videos_follow_the_policy(tmp_path: Path, count: int) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(count), b_frames=0)
    for short in ("repeat_last", "wrap"):
        snapped, exact = (
            media.sample(path, media.ClipSpec(clips=2, short=short, snap=snap))
            for snap in ("keyframe", "exact")
        )
        np.testing.assert_array_equal(snapped.timestamps_s, exact.timestamps_s)
        np.testing.assert_array_equal(snapped.frames, exact.frames)
    if count < 61:
        with pytest.raises(InvalidInputError, match="a clip spans"):
            media.sample(path, media.ClipSpec(short="error", snap="keyframe"))


def test_no_frame_repeats_where_reference_frames_are_farther_apart_than_the_stride(
    tmp_path: Path,
) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(200), gop=40, b_frames=3)
    for stride in (1, 2, 3):
        spec = media.ClipSpec(snap="keyframe", clips=3, stride=stride)
        times = media.sample(path, spec).timestamps_s
        assert (np.diff(times, axis=1) > 0).all()


@pytest.mark.parametrize(
    ("codec", "ending"), [("mpeg4", "mp4"), ("libvpx-vp9", "webm"), ("ffv1", "mkv")]
)
def test_other_codecs_begin_at_their_key_frames(tmp_path: Path, codec: str, ending: str) -> None:
    path = media.write_video(tmp_path / f"a.{ending}", numbered(200), codec=codec, gop=20)
    expected = all_frames(path)
    keys = key_times(path)
    clips = media.sample(path, media.ClipSpec(snap="keyframe", clips=4, frames=8))
    assert {round(t, 6) for t in clips.timestamps_s[:, 0]} <= keys
    for clip, times in zip(clips.frames, clips.timestamps_s, strict=True):
        for frame, time_s in zip(clip, times, strict=True):
            np.testing.assert_array_equal(frame, expected[round(time_s, 6)])


def test_snapping_changes_nothing_in_an_intra_only_video(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", numbered(200), gop=1)
    timeline = read_timeline(path)
    assert len(timeline.keys) == 200
    np.testing.assert_array_equal(
        place_clips(timeline, KEYFRAME), place_clips(timeline, media.ClipSpec())
    )


def test_files_without_presentation_times_are_sampled_as_with_exact(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.h264", numbered(200), gop=20)
    timeline = read_timeline(path)
    assert timeline.counted
    np.testing.assert_array_equal(
        place_clips(timeline, KEYFRAME), place_clips(count_timeline(path), media.ClipSpec())
    )
    assert media.sample(path, KEYFRAME).frames_substituted == 0


@pytest.mark.parametrize("ending", ["mp4", "ts"])
@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"bf": "3"}),
        ("libx264", {"bf": "5", "x264-params": "b-pyramid=none"}),
        ("libx264", {"bf": "3", "x264-params": "open-gop=1:slices=3"}),
        ("libx264", {"x264-params": "interlaced=1:bframes=2"}),
        ("libx265", {"x265-params": "bframes=4:log-level=none"}),
        ("libx265", {"x265-params": "bframes=3:temporal-layers=2:log-level=none"}),
    ],
)
def test_skippable_frames_are_found_without_decoding(
    tmp_path: Path, codec: str, options: dict[str, str], ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "30"} | options)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for number, pixels in enumerate(numbered(120)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    timeline = read_timeline(path)
    assert not timeline.counted
    shown = {
        round(float(t), 6)
        for t, pts in zip(timeline.times_s, timeline.pts, strict=True)
        if pts not in timeline.skippable
    }
    if "temporal-layers" in str(options):
        # FFmpeg also skips frames of lower layers, which others may refer to.
        assert shown >= reference_times(path)
    else:
        assert shown == reference_times(path)
    assert len(shown) < 110
    # Skipping them does not change the other frames.
    expected = all_frames(path)
    for spec in (
        media.ClipSpec(clips=3, frames=5, stride=3),
        media.ClipSpec(clips=2, snap="keyframe"),
    ):
        clips = media.sample(path, spec, decoder="pyav")
        for clip, times in zip(clips.frames, clips.timestamps_s, strict=True):
            for frame, time_s in zip(clip, times, strict=True):
                np.testing.assert_array_equal(frame, expected[round(time_s, 6)])


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=5),
    st.lists(st.integers(0, 60), min_size=5, max_size=9, unique=True),
)
def test_the_assignment_has_the_least_sum_of_shifts(few: list[int], many: list[int]) -> None:
    from itertools import combinations

    places, candidates = np.sort(few).astype(float), np.sort(many).astype(float)
    chosen = _assign(places, candidates)
    assert (np.diff(chosen) > 0).all()
    best = min(
        np.abs(candidates[list(one)] - places).sum()
        for one in combinations(range(len(many)), len(few))
    )
    assert np.abs(candidates[chosen] - places).sum() == best


@settings(deadline=None, max_examples=150)
@given(
    gaps=st.lists(st.integers(1, 9), min_size=0, max_size=150),
    key_every=st.integers(1, 60),
    reference_every=st.integers(1, 9),
    clips=st.integers(1, 10),
    frames=st.integers(1, 16),
    stride=st.integers(1, 5),
    short=st.sampled_from(["repeat_last", "wrap"]),
)
def test_every_video_gets_its_clips(
    gaps: list[int],
    key_every: int,
    reference_every: int,
    clips: int,
    frames: int,
    stride: int,
    short: str,
) -> None:
    pts = tuple(np.cumsum([7, *gaps]).tolist())
    keys = pts[::key_every]
    skippable = frozenset(p for n, p in enumerate(pts) if n % reference_every and p not in keys)
    timeline = Timeline(times_s=np.array(pts) / 90.0, pts=pts, keys=keys, skippable=skippable)
    spec = media.ClipSpec(
        clips=clips,
        frames=frames,
        stride=stride,
        short=short,
        snap="keyframe",  # type: ignore[arg-type]
    )
    places = place_clips(timeline, spec)
    assert places.shape == (clips, frames)
    assert places.min() >= 0
    assert places.max() < len(pts)
    if short == "repeat_last":
        assert (np.diff(places, axis=1) >= 0).all()
    exact = place_clips(timeline, media.ClipSpec(clips=clips, frames=frames, stride=stride))
    starts = [pts[number] for number in places[:, 0]]
    used = [start for start in starts if start in keys]
    span_s = (frames - 1) * stride * timeline.period_s
    if timeline.times_s[-1] - timeline.times_s[0] > span_s:
        begins = [p for p in pts if p / 90 + span_s <= timeline.times_s[-1] + 1e-9]
        if len(begins) >= clips:
            assert len(set(starts)) == clips
        room = [k for k in keys if k / 90 + span_s <= timeline.times_s[-1] + 1e-9]
        assert len(set(used)) >= min(clips, len(room))
    else:
        np.testing.assert_array_equal(places[:, 0], exact[:, 0])
    np.testing.assert_array_equal(places, place_clips(timeline, spec))
