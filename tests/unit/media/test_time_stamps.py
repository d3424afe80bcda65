"""Time stamps that run backwards, jump or leave gaps: frames come in order, and clips move."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinml import media
from coinml.media.time_stamps import ascending, without_gaps
from coinml.media.timeline import read_timeline
from tests.helpers.drawn_videos import (
    X264_B_FRAMES,
    X265_OPEN,
    chunks_of,
    draw,
    mux_avi,
    numbers_in,
)
from tests.helpers.numbered_frames import SIZE, numbered

SPEC = media.ClipSpec(clips=4, frames=6, stride=2)
NO_B = {"x264-params": "bframes=0:keyint=30:scenecut=0"}


def assert_places(path: Path, own: list[int]) -> media.SampledClips:
    """Assert that clips show a film's own frames in order, spread over the whole of it."""
    for snap in ("exact", "keyframe"):
        spec = media.ClipSpec(clips=4, frames=6, stride=2, snap=snap)  # type: ignore[arg-type]
        clips = media.sample(path, spec)
        assert clips.frames_substituted == 0
        places = np.array([[own.index(n) for n in clip] for clip in numbers_in(clips)])
        assert (np.diff(places, axis=1) > 0).all()
        if snap == "exact":
            assert (np.diff(places, axis=1) == 2).all()
            middles = (len(own) - 11) * (np.arange(4) + 0.5) / 4
            np.testing.assert_allclose(places[:, 0], middles, atol=1.5)
        assert (np.diff(clips.timestamps_s, axis=1) > 0).all()
    verdict = media.check(path, deadline_s=None)
    assert (verdict.verdict, verdict.frames_decoded) == ("ok", len(own))
    assert verdict.duration_s == pytest.approx(len(own) / 25, abs=0.1)
    assert media.probe(path).duration_s == pytest.approx(len(own) / 25, abs=0.3)
    return clips


@pytest.mark.parametrize(
    ("codec", "container_format", "options"),
    [
        ("libx264", "h264", X264_B_FRAMES),
        ("libx264", "h264", {"x264-params": "bframes=5:b-pyramid=normal:keyint=60"}),
        ("libx264", "h264", NO_B),
        ("mpeg4", "m4v", {"bf": "2", "g": "30"}),
    ],
)
def test_avi_states_when_frames_are_decoded(
    tmp_path: Path, codec: str, container_format: str, options: dict[str, str]
) -> None:
    bare = draw(tmp_path / "bare", codec, options=options, container_format=container_format)
    path = mux_avi(tmp_path / "a.avi", codec, chunks_of(bare, container_format))
    assert_places(path, list(range(120)))
    # A full decode is needed only where the stamps are wrong.
    assert read_timeline(path).counted == (options not in (NO_B,) and codec == "libx264")


@pytest.mark.parametrize(("codec", "options"), [("libx264", X264_B_FRAMES), ("libx265", X265_OPEN)])
def test_a_file_without_composition_times_is_shown_in_order(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    full = draw(tmp_path / "full.mp4", codec, options=options)
    path = tmp_path / "a.mp4"
    with (
        av.open(str(full)) as old,
        av.open(str(path), "w", options={"use_editlist": "0"}) as new,
    ):
        stream = new.add_stream_from_template(old.streams.video[0])
        first = None
        for packet in old.demux(video=0):
            if packet.dts is not None:
                first = packet.dts if first is None else first
                packet.pts = packet.dts = packet.dts - first
                packet.stream = stream
                new.mux(packet)
    assert_places(path, list(range(120)))


def joined(path: Path, *parts: tuple[range, float], options: dict[str, str]) -> list[int]:
    """Transport streams one after the other, each with its frames and its first time."""
    content = b""
    own: list[int] = []
    for place, (numbers, start_s) in enumerate(parts):
        part = path.with_name(f"{place}.ts")
        times_s = [start_s + n / 25 for n in range(len(numbers))]
        content += draw(part, numbers=numbers, times_s=times_s, options=options).read_bytes()
        own += numbers
    path.write_bytes(content)
    return own


@pytest.mark.parametrize("options", [NO_B, X264_B_FRAMES])
@pytest.mark.parametrize(
    "parts",
    [
        [(range(100), 0.0), (range(100, 200), 0.0)],
        [(range(100), 0.0), (range(100, 200), 0.02)],
        [(range(100), 0.0), (range(100, 150), 1.013)],
        [(range(50), 0.0), (range(50, 200), 1.0)],
        [(range(100), 0.0), (range(100, 200), 3.8)],
        [(range(100), 50_000.0), (range(100, 200), 0.0)],
        [(range(100), 0.0), (range(100, 200), 50_000.0)],
        [(range(60), 5.0), (range(60, 120), 3.0), (range(120, 240), 0.0)],
    ],
    ids=str,
)
def test_a_second_recording_comes_after_the_first(
    tmp_path: Path, parts: list[tuple[range, float]], options: dict[str, str]
) -> None:
    path = tmp_path / "joined.ts"
    assert_places(path, joined(path, *parts, options=options))


def test_a_clock_that_wraps_around_goes_on(tmp_path: Path) -> None:
    ticks = [2**33 - 3600 * 100 + 3600 * n for n in range(200)]
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=X264_B_FRAMES)
        stream.height, stream.width, stream.pix_fmt = *SIZE[:2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        for tick, pixels in zip(ticks, numbered(200), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = tick, Fraction(1, 90_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert_places(path, list(range(200)))


@pytest.mark.parametrize("ending", ["mkv", "mp4"])
def test_a_camera_that_records_on_motion_shows_every_burst(tmp_path: Path, ending: str) -> None:
    times_s = [3600 * burst + n / 25 for burst in range(5) for n in range(40)]
    path = draw(tmp_path / f"a.{ending}", numbers=range(200), times_s=times_s, options=NO_B)
    clips = assert_places(path, list(range(200)))
    # The times stay those that the file states.
    assert clips.timestamps_s[-1, 0] > 4 * 3600
    later = media.sample(path, SPEC, start_s=3599, end_s=3610)
    assert set(numbers_in(later).ravel()) <= set(range(40, 80))


@pytest.mark.parametrize("jump_s", [20, 3600, 36_000])
def test_a_wild_stamp_at_the_end_is_no_gap(tmp_path: Path, jump_s: int) -> None:
    times_s = [n / 25 for n in range(199)] + [199 / 25 + jump_s]
    path = draw(tmp_path / "a.mkv", numbers=range(200), times_s=times_s, options=NO_B)
    assert_places(path, list(range(200)))
    verdict = media.check(path, deadline_s=None)
    assert verdict.earliest_s == 0
    assert verdict.latest_s == pytest.approx(199 / 25 + jump_s)


@pytest.mark.parametrize("stamps", [{90: 3600_000}, {90: 3600_000, 91: 3600_000}, {90: 9000}])
def test_wild_stamps_in_the_middle_leave_frames_in_place(
    tmp_path: Path, stamps: dict[int, int]
) -> None:
    whole = draw(tmp_path / "whole.mkv", numbers=range(200), options=NO_B)
    path = tmp_path / "a.mkv"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        packets = (packet for packet in old.demux(video=0) if packet.dts is not None)
        for place, packet in enumerate(packets):
            packet.pts = stamps.get(place, packet.pts)
            packet.stream = stream
            new.mux(packet)
    clips = assert_places(path, list(range(200)))
    assert clips.timestamps_s.max() < 8


@pytest.mark.parametrize("ending", ["mkv", "mp4", "ts"])
def test_a_late_start_is_no_length(tmp_path: Path, ending: str) -> None:
    times_s = [7 + n / 25 for n in range(100)]
    path = draw(tmp_path / f"a.{ending}", numbers=range(100), times_s=times_s)
    assert media.probe(path).duration_s == pytest.approx(4.0, abs=0.05)
    verdict = media.check(path, deadline_s=None)
    assert verdict.duration_s == pytest.approx(4.0, abs=0.05)
    assert verdict.as_dict().keys() == {
        "file",
        "verdict",
        "frames_claimed",
        "frames_decoded",
        "reason",
    }


def test_stills_between_pictures_stay(tmp_path: Path) -> None:
    times_s = [n / 25 for n in range(100)] + [9 + n / 25 for n in range(100)]
    path = draw(tmp_path / "a.mkv", numbers=range(200), times_s=times_s)
    timeline = read_timeline(path)
    np.testing.assert_array_equal(timeline.steady_s, timeline.times_s)
    assert timeline.times_s[-1] == pytest.approx(9 + 99 / 25)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.one_of(st.none(), st.integers(-(10**9), 10**9)), min_size=1, max_size=40))
def test_any_stamps_become_ascending_ones(stamps_ms: list[int | None]) -> None:
    times = ascending([None if s is None else s / 1000 for s in stamps_ms], period_s=0.04)
    assert len(times) == len(stamps_ms)
    assert (np.diff(times) > 0).all()
    closed = without_gaps(times)
    assert len(closed) == len(times)
    assert (np.diff(closed) > 0).all()
    assert closed[-1] - closed[0] <= times[-1] - times[0] + 1e-6


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_good_stamps_stay(gaps: list[int]) -> None:
    times = np.cumsum([0, *gaps]) / 90
    np.testing.assert_array_equal(ascending(times.tolist(), period_s=1), times)
