from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from coinml.collection.recheck import recheck
from coinml.data.records import Dataset, Video
from coinml.ledger import DOWNLOADED, PENDING, FileFacts, Ledger

IDS = ["aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc", "ddddddddddd"]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        videos = [
            Video(video_id=video_id, label="saw", subset="training", split="train")
            for video_id in IDS
        ]
        opened.register(Dataset(name="mini", videos=tuple(videos)))
        for video_id in IDS:
            record(opened, tmp_path / f"{video_id}.mp4", b"content")
        yield opened


def record(ledger: Ledger, path: Path, content: bytes, origin: str = "download") -> None:
    path.write_bytes(content)
    facts = FileFacts(
        path=str(path),
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        mtime_ns=path.stat().st_mtime_ns,
        origin=origin,  # type: ignore[arg-type]
    )
    ledger.record_success("mini", path.stem, file=facts, attempt=None)


def test_videos_with_missing_or_altered_files_are_due_again(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / f"{IDS[0]}.mp4").unlink()
    (tmp_path / f"{IDS[1]}.mp4").write_bytes(b"more content")
    (tmp_path / f"{IDS[2]}.mp4").write_bytes(b"c0ntent")
    # Touched, but with the same content.
    os.utime(tmp_path / f"{IDS[3]}.mp4", ns=(1, 1))
    report = recheck(ledger, "mini")
    assert (report.missing, report.altered) == ((IDS[0],), (IDS[1], IDS[2]))
    assert report.unchanged == 1
    assert ledger.due("mini") == IDS[:3]
    assert [row.state for row in ledger.rows("mini")] == [PENDING] * 3 + [DOWNLOADED]
    assert ledger.row("mini", IDS[1]).path is None
    assert (tmp_path / ".quarantine" / f"{IDS[2]}.mp4").read_bytes() == b"c0ntent"
    assert recheck(ledger, "mini").unchanged == 1


def test_a_change_with_the_old_modification_time_is_found_by_a_deep_check(
    ledger: Ledger, tmp_path: Path
) -> None:
    path = tmp_path / f"{IDS[0]}.mp4"
    before = path.stat()
    path.write_bytes(b"c0ntent")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert recheck(ledger, "mini").altered == ()
    assert recheck(ledger, "mini", deep=True).altered == (IDS[0],)


def test_the_users_own_files_stay_where_they_are(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / f"{IDS[0]}.mp4"
    record(ledger, path, b"mine", origin="in_place")
    path.write_bytes(b"mine, edited")
    assert recheck(ledger, "mini").altered == (IDS[0],)
    assert path.read_bytes() == b"mine, edited"
