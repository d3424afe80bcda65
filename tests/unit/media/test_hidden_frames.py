"""Files that show fewer frames than their header claims, and are whole; and cut ones."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest

from coinml import media
from tests.helpers.drawn_videos import (
    X264_B_FRAMES,
    X264_OPEN,
    X265_OPEN,
    chunks_of,
    copy_from,
    draw,
    mux_avi,
    numbers_in,
)
from tests.helpers.numbered_frames import all_frames, number_of

SPEC = media.ClipSpec(clips=3, frames=6, stride=2)
ONE_KEY = {"x264-params": "keyint=300:scenecut=0:bframes=0"}


def says(path: Path, claimed: int, decoded: int, *words: str) -> None:
    """Assert that a file is whole, and that the reason names what it hides."""
    verdict = media.check(path, deadline_s=None)
    assert (verdict.verdict, verdict.frames_claimed, verdict.frames_decoded) == (
        "ok",
        claimed,
        decoded,
    )
    assert f"{claimed - decoded} of {claimed} claimed frames are not shown" in str(verdict.reason)
    assert str(verdict.reason).startswith(path.name)
    for word in words:
        assert word in str(verdict.reason)
    own = [number_of(frame) for frame in all_frames(path).values()]
    clips = media.sample(path, SPEC)
    assert clips.frames_substituted == 0
    assert set(numbers_in(clips).ravel()) <= set(own)


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize("options", [ONE_KEY, X264_B_FRAMES])
def test_an_edit_list_hides_the_frames_before_a_lossless_trim(
    tmp_path: Path, ending: str, options: dict[str, str]
) -> None:
    full = draw(tmp_path / f"full.{ending}", options=options)
    path = copy_from(full, tmp_path / f"trimmed.{ending}", start_s=2.0)
    says(path, 120, 70, "50 cut off by an edit list")
    assert numbers_in(media.sample(path, SPEC)).min() >= 50


def test_an_edit_list_hides_the_end(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.mp4", options=ONE_KEY)
    content = bytearray(path.read_bytes())
    # The edit's length, in thousandths of a second: 2 of 4.8 s.
    at = content.index(b"elst") + 12
    assert struct.unpack(">I", content[at : at + 4])[0] == 4800
    content[at : at + 4] = struct.pack(">I", 2000)
    path.write_bytes(content)
    says(path, 120, 50, "70 cut off by an edit list")


def test_a_trimmed_file_that_is_cut_is_damaged(tmp_path: Path) -> None:
    options = {"movflags": "faststart"}
    full = draw(tmp_path / "full.mp4", options=ONE_KEY)
    path = copy_from(full, tmp_path / "trimmed.mp4", start_s=2.0, options=options)
    content = path.read_bytes()
    says(path, 120, 70)
    start = content.index(b"mdat")
    for share in (0.7, 0.8, 0.95):
        path.write_bytes(content[: start + int((len(content) - start) * share)])
        assert media.check(path, deadline_s=None).verdict == "damaged"


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx265", X265_OPEN),
        ("libx264", X264_OPEN),
        ("mpeg2video", {"bf": "2", "g": "12", "sc_threshold": "1000000000"}),
    ],
)
def test_pictures_that_refer_to_frames_before_the_cut_are_named(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    full = draw(tmp_path / "full.mov", codec, options=options)
    hidden = copy_from(full, tmp_path / "cut.mov", key=1)
    lost = media.check(hidden, deadline_s=None)
    assert lost.frames_claimed is not None
    assert lost.frames_decoded < lost.frames_claimed
    says(hidden, lost.frames_claimed, lost.frames_decoded)
    bare = copy_from(full, tmp_path / "bare.mov", key=1, options={"use_editlist": "0"})
    says(bare, lost.frames_claimed, lost.frames_decoded, "before the cut")


def test_frames_that_a_camera_dropped_are_empty(tmp_path: Path) -> None:
    kept = [n for n in range(120) if n % 7 != 3 and not 50 < n < 58]
    times_s = [n / 25 for n in kept]
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        bare = draw(tmp_path / "bare", "mpeg4", numbers=kept, container_format="m4v")
        chunks = chunks_of(bare, "m4v")
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for time_s, (content, is_key) in zip(times_s, chunks, strict=True):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = round(time_s * 25)
            packet.is_keyframe = is_key
            container.mux(packet)
    lost = 120 - len(kept)
    says(path, 120, len(kept), f"{lost} empty")
    says(_with_empty_chunks(path, 7), 127, len(kept), f"{lost + 7} empty")
    content = path.read_bytes()
    for share in (0.3, 0.5, 0.7):
        path.write_bytes(content[: int(len(content) * share)])
        assert media.check(path, deadline_s=None).verdict in ("damaged", "unusable")


def _with_empty_chunks(path: Path, count: int) -> Path:
    """Append empty chunks to an AVI, in the header and in the index, too."""
    content = bytearray(path.read_bytes())
    for name, place in ((b"avih", 16), (b"strh", 32)):
        at = content.index(name) + 8 + place
        (number,) = struct.unpack("<I", content[at : at + 4])
        content[at : at + 4] = struct.pack("<I", number + count)
    movi = content.index(b"movi")
    (size,) = struct.unpack("<I", content[movi - 4 : movi])
    content[movi - 4 : movi] = struct.pack("<I", size + 8 * count)
    index = content.index(b"idx1", movi + size)
    (listed,) = struct.unpack("<I", content[index + 4 : index + 8])
    entries = b"".join(
        b"00dc" + struct.pack("<III", 0, size + 8 * place, 0) for place in range(count)
    )
    new = (
        content[: movi + size]
        + b"00dc\0\0\0\0" * count
        + b"idx1"
        + struct.pack("<I", listed + 16 * count)
        + content[index + 8 : index + 8 + listed]
        + entries
    )
    new[4:8] = struct.pack("<I", len(new) - 8)
    path.write_bytes(new)
    return path


@pytest.mark.parametrize("place", [19, 119])
def test_a_sample_without_bytes_is_empty(tmp_path: Path, place: int) -> None:
    path = draw(tmp_path / "a.mp4", options={"x264-params": "keyint=20:scenecut=0:bframes=0"})
    content = bytearray(path.read_bytes())
    table = content.index(b"stsz") + 16
    sizes = struct.unpack(">120I", content[table : table + 480])
    content[table + 4 * place : table + 4 * place + 4] = bytes(4)
    data = content.index(b"mdat")
    (size,) = struct.unpack(">I", content[data - 4 : data])
    content[data - 4 : data] = struct.pack(">I", size - sizes[place])
    start = data + 4 + sum(sizes[:place])
    del content[start : start + sizes[place]]
    path.write_bytes(content)
    says(path, 120, 119, "1 empty")


def _vop_kind(content: bytes) -> int:
    """0 for I, 1 for P, 2 for B."""
    return content[content.index(b"\x00\x00\x01\xb6") + 4] >> 6


def _packed(path: Path, *, tail: int) -> Path:
    """XviD's packed bitstream: a B-frame lies in the chunk before, an empty VOP in its place."""
    plain = draw(
        path.with_name("bare"),
        "mpeg4",
        container_format="m4v",
        numbers=range(121),
        options={"bf": "1", "g": "12", "b_strategy": "0", "sc_threshold": "1000000000"},
    )
    vops = [content for content, _ in chunks_of(plain, "m4v")]
    # A P-VOP with nothing coded.
    empty = b"\x00\x00\x01\xb6\x50\xcf"
    chunks: list[bytes] = []
    place = 0
    while place < len(vops):
        if place + 1 < len(vops) and _vop_kind(vops[place + 1]) == 2:
            chunks += [vops[place] + vops[place + 1], empty]
            place += 2
        else:
            chunks.append(vops[place])
            place += 1
    at = chunks[0].index(b"\x00\x00\x01\xb6")
    chunks[0] = chunks[0][:at] + b"\x00\x00\x01\xb2DivX503b1393p" + chunks[0][at:]
    return mux_avi(path, "mpeg4", ((c, _vop_kind(c) == 0) for c in chunks + [empty] * tail))


@pytest.mark.parametrize("tail", [1, 2])
def test_a_packed_bitstream_ends_in_empty_pictures(tmp_path: Path, tail: int) -> None:
    path = _packed(tmp_path / "a.avi", tail=tail)
    says(path, 121 + tail, 121, "without a picture")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert media.check(path, deadline_s=None).verdict in ("damaged", "unusable")


def test_frames_that_are_lost_in_the_middle_are_damage(tmp_path: Path) -> None:
    path = draw(tmp_path / "a.avi", "mpeg4", options={"g": "12"})
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    first, last = places[40][0] - 8, places[60][0] - 8
    content[first:last] = bytes(last - first)
    path.write_bytes(content)
    verdict = media.check(path, deadline_s=None)
    assert verdict.verdict == "damaged"
    assert verdict.frames_decoded < 120
