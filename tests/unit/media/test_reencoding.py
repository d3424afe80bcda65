"""Re-encoding through a lower resolution: same length and size, less detail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from coinml.errors import CorruptVideoError, InvalidInputError
from coinml.media import ClipSpec, probe, sample, write_video
from coinml.media.reencoding import reencode

SPEC = ClipSpec(clips=2, frames=8, stride=2)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    path = tmp_path_factory.mktemp("sharp") / "sharp.mp4"
    return make_video(path, seconds=2, size=(96, 64), seed=3)


def error(video: Path, path: Path) -> float:
    """Mean absolute difference from the video's pixels, on the scale 0 to 255."""
    before, after = sample(video, SPEC).frames, sample(path, SPEC).frames
    assert before.shape == after.shape
    return float(np.abs(before.astype(int) - after.astype(int)).mean())


def test_lower_resolutions_lose_more_and_keep_size_and_times(video: Path, tmp_path: Path) -> None:
    errors = []
    for rows in (64, 32, 16):
        path = reencode(video, tmp_path / f"{rows}.mp4", rows=rows)
        before, after = probe(video), probe(path)
        assert (after.width, after.height) == (before.width, before.height)
        np.testing.assert_allclose(
            sample(path, SPEC).timestamps_s, sample(video, SPEC).timestamps_s, atol=1e-3
        )
        errors.append(error(video, path))
    assert errors[0] < errors[1] < errors[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["16.mp4", "32.mp4", "64.mp4"]


def test_a_video_below_the_resolution_keeps_its_size(video: Path, tmp_path: Path) -> None:
    same = error(video, reencode(video, tmp_path / "same.mp4", rows=64))
    more = error(video, reencode(video, tmp_path / "more.mp4", rows=360))
    half = error(video, reencode(video, tmp_path / "half.mp4", rows=32))
    assert more == pytest.approx(same, rel=0.1)
    assert same < half / 2


def test_rows_mean_the_shorter_side_and_variable_rates_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times_s = [0.5, 0.54, 0.7, 0.74, 1.0, 1.04]
    frames = [rng.integers(0, 255, (96, 48, 3), dtype=np.uint8) for _ in times_s]
    source = write_video(tmp_path / "tall.mp4", frames, times_s=times_s)
    small = reencode(source, tmp_path / "small.mp4", rows=24)
    spec = ClipSpec(clips=1, frames=6, stride=1)
    kept = sample(small, spec).timestamps_s
    wanted = sample(source, spec).timestamps_s
    np.testing.assert_allclose(kept - kept.min(), wanted - wanted.min(), atol=1e-3)
    assert (probe(small).width, probe(small).height) == (48, 96)


def test_invalid_requests_leave_no_file(video: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(video.read_bytes()[:400])
    with pytest.raises(CorruptVideoError):
        reencode(broken, tmp_path / "out.mp4", rows=16)
    with pytest.raises(InvalidInputError, match="rows 1: at least 2"):
        reencode(video, tmp_path / "out.mp4", rows=1)
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]
