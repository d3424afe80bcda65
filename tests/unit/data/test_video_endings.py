from __future__ import annotations

from pathlib import Path

from coinml.collection.adopt import adopt_folder
from coinml.collection.video_folder import VideoFolder
from coinml.data.folders import read_folder
from coinml.data.records import Dataset, Video
from coinml.data.video_endings import VIDEO_ENDINGS
from coinml.ledger import Ledger
from coinml.media import Verdict

NAMES = [f"video{number}{ending}" for number, ending in enumerate(VIDEO_ENDINGS)]


def test_folder_datasets_imports_and_collection_take_the_same_endings(tmp_path: Path) -> None:
    assert ".mts" in VIDEO_ENDINGS
    given = tmp_path / "given"
    for label in ("saw", "drill"):
        (given / label).mkdir(parents=True)
        for name in [*NAMES, "notes.txt"]:
            (given / label / name).write_bytes(name.encode())
    read = read_folder(given, name="given")
    assert len(read.videos) == 2 * len(NAMES)

    ids = [Path(name).stem for name in NAMES]
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        ledger.register(
            Dataset(
                name="mini",
                videos=tuple(
                    Video(video_id=one, label="saw", subset="training", split="train")
                    for one in ids
                ),
            )
        )
        videos = tmp_path / "videos"
        report = adopt_folder(ledger, "mini", given / "saw", videos_dir=videos, verify=_decodes)
    assert set(report.adopted) == set(ids)
    assert [path.name for one in ids for path in VideoFolder(videos).leftovers(one)] == NAMES


def _decodes(path: Path) -> Verdict:
    return Verdict(file=str(path), verdict="ok", frames_claimed=1, frames_decoded=1, reason=None)
