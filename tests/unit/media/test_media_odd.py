"""Unusual and broken real files: no crash, no hang, and the right verdict."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from coinml import media
from coinml.errors import CorruptVideoError, InvalidInputError

DEADLINE_S = 30.0

DIFFERENT = {
    # Matroska and WebM state no number of frames and end without an error where truncated, so the
    # probe finds no fault in these two. They state lengths of 10.4 and 30.0 s, of which 2.8 and
    # 11.9 s exist.
    "odd/derived_truncated_30pct.mkv": "damaged",
    "odd/derived_truncated_40pct.webm": "damaged",
    # Whole files whose headers count a frame that is not shown: an empty chunk, and two edit lists.
    "odd/androidx_avi_sample-with-large-length.avi": "ok",
    "odd/androidx_mp4_dolbyVision-hdr.MOV": "ok",
    "odd/androidx_mp4_iibbibb_editlist_videoonly.mp4": "ok",
}


def _manifest(shared_data: Path) -> list[dict[str, str]]:
    with (shared_data / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _probe_says(row: dict[str, str]) -> str:
    decoded = int(row["decoded_frames"] or 0)
    if row["open_error"] or not decoded:
        return "unusable"
    # Two files were probed only for their first 6,000 frames.
    short = decoded < int(row["hdr_frames"] or 0) and "stopped" not in row["note"]
    return "damaged" if row["decode_error"] or short else "ok"


@pytest.fixture(scope="module")
def pool() -> media.DecodePool:
    with media.DecodePool(workers=2) as opened:
        yield opened


def test_verdicts_agree_with_a_full_decode(shared_data: Path, pool: media.DecodePool) -> None:
    rows = _manifest(shared_data)
    pending = {
        row["file"]: pool.submit_check(shared_data / row["file"], deadline_s=DEADLINE_S)
        for row in rows
    }
    verdicts = {name: future.result() for name, future in pending.items()}
    assert sum(name.startswith("odd/") for name in verdicts) == 74
    expected = {row["file"]: _probe_says(row) for row in rows} | DIFFERENT
    assert {name: verdict.verdict for name, verdict in verdicts.items()} == expected
    for verdict in verdicts.values():
        fewer = verdict.frames_decoded < (verdict.frames_claimed or 0)
        assert (verdict.reason is None) == (verdict.verdict == "ok" and not fewer)
        assert (verdict.frames_decoded == 0) == (verdict.verdict == "unusable")


@pytest.mark.parametrize("snap", ["exact", "keyframe"])
def test_every_file_is_sampled_or_refused(
    shared_data: Path, pool: media.DecodePool, snap: str
) -> None:
    files = sorted((shared_data / "odd").iterdir())
    assert len(files) == 74
    spec = media.ClipSpec(clips=2, snap=snap)  # type: ignore[arg-type]
    pending = {
        path: pool.submit_sample(path, spec, decoder="pyav", deadline_s=DEADLINE_S)
        for path in files
    }
    refused = set()
    for path, future in pending.items():
        if (error := future.exception()) is not None:
            assert isinstance(error, CorruptVideoError), path.name
            assert path.name in str(error)
            refused.add(path.name)
            continue
        clips = future.result()
        assert clips.frames.shape[:2] == (2, 16)
        assert (np.diff(clips.timestamps_s, axis=1) >= 0).all()
    unusable = {
        Path(row["file"]).name
        for row in _manifest(shared_data)
        if row["file"].startswith("odd/") and _probe_says(row) == "unusable"
    }
    assert refused == unusable


ROTATED = {
    "decord_video_90.mov": (568, 320),
    "decord_video_180.mov": (320, 568),
    "decord_video_270.mov": (568, 320),
    "torchcodec_nasa_13013_rotated.mp4": (480, 270),
}


@pytest.mark.parametrize("name", sorted(ROTATED))
def test_rotated_files_are_returned_upright(shared_data: Path, name: str) -> None:
    path = shared_data / "odd" / name
    upright = media.sample(path, media.ClipSpec(clips=1), decoder="pyav")
    assert upright.frames.shape[2:4] == ROTATED[name]
    info = media.probe(path)
    assert (info.height, info.width) == ROTATED[name]
    pytest.importorskip("decord")
    # decord rotates frames by its own code.
    other = media.sample(path, media.ClipSpec(clips=1), decoder="decord")
    np.testing.assert_array_equal(other.frames, upright.frames)


@pytest.mark.parametrize(
    ("name", "first_s"),
    [
        ("torchcodec_test_non_zero_start.mp4", 8.333),
        ("derived_start_at_20_days.mkv", 1_728_000.0),
        ("androidx_mp4_bbb_800x640_768kbps_30fps_avc_2b_firstpts_10_sec.mp4", 10.0),
    ],
)
def test_a_late_start_shifts_only_the_times(shared_data: Path, name: str, first_s: float) -> None:
    spec = media.ClipSpec(clips=1, frames=3, stride=1)
    clips = media.sample(shared_data / "odd" / name, spec, start_s=0.0, end_s=0.1)
    np.testing.assert_allclose(clips.timestamps_s[0], first_s + np.arange(3) / 30, atol=2e-3)


def test_decord_and_pyav_give_the_same_pixels(shared_data: Path, pool: media.DecodePool) -> None:
    pytest.importorskip("decord")
    files = [
        path
        for folder in ("fall", "fight", "asl_gesture", "misc")
        for path in sorted((shared_data / "clips" / folder).iterdir())[:4]
    ]
    assert len(files) > 10
    spec = media.ClipSpec(clips=3)
    compared = 0
    for path in files:
        ours = pool.submit_sample(path, spec, decoder="pyav", deadline_s=DEADLINE_S)
        theirs = pool.submit_sample(path, spec, decoder="decord", deadline_s=DEADLINE_S)
        if isinstance(theirs.exception(), InvalidInputError):
            continue  # AV1, which decord does not read, or 4K, which it does not scale.
        other = theirs.result()
        np.testing.assert_array_equal(ours.result().frames, other.frames, err_msg=path.name)
        np.testing.assert_array_equal(ours.result().timestamps_s, other.timestamps_s)
        compared += 1
    assert compared > 8


def test_frames_too_large_for_memory_are_scaled_down(shared_data: Path) -> None:
    path = shared_data / "odd" / "androidx_mp4_8k24fps_300ms.mp4"
    clips = media.sample(path, media.ClipSpec(clips=1, frames=2))
    assert clips.frames.shape == (1, 2, 1080, 1920, 3)
