"""Which videos a run is about, and how often its annotations are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coinml import selection as module
from coinml.selection import Selection


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The datasets that are read."""
    found: list[str] = []
    load = module.load_dataset

    def counted(ref: str, **how: object) -> object:
        found.append(ref)
        return load(ref, **how)

    module._read_once.cache_clear()
    monkeypatch.setattr(module, "load_dataset", counted)
    return found


def write(path: Path, *ids: str) -> None:
    video = {"class": "Boil", "subset": "training", "duration": 1.0}
    path.write_text(json.dumps({"database": dict.fromkeys(ids, video)}))


def test_annotations_are_read_again_only_when_they_or_the_taxonomy_changed(
    tmp_path: Path, reads: list[str]
) -> None:
    path = tmp_path / "COIN.json"
    write(path, "a", "b", "c")
    chosen, part = Selection(dataset=str(path)), Selection(dataset=str(path), limit=1)
    first = chosen.load(tmp_path)
    assert Selection(dataset=str(path)).load(tmp_path) is first
    assert len(part.load(tmp_path).videos) == 1
    assert len(reads) == 2
    write(path, "a", "b", "c", "d")
    assert len(chosen.load(tmp_path).videos) == 4
    sheet = tmp_path / "taxonomy_domain_target_mapping.csv"
    sheet.write_text("Domains,Targets\nEggs,Boil\n")
    assert {video.domain for video in chosen.load(tmp_path).videos} == {"Eggs"}
    assert len(reads) == 4


def test_a_folder_is_listed_every_time(tmp_path: Path, reads: list[str]) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "clips" / name / f"{number}.mp4").write_bytes(b"")
    chosen = Selection(dataset=f"folder:{tmp_path / 'clips'}")
    assert len(chosen.load(tmp_path).videos) == 9
    (tmp_path / "clips" / "a" / "new.mp4").write_bytes(b"")
    assert len(chosen.load(tmp_path).videos) == 10
    assert len(reads) == 2
