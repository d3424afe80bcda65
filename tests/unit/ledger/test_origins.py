"""Two folders of one name are two datasets; a dataset that moved is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from coinml.collection.adopt import adopt_in_place
from coinml.data.annotations import load_dataset
from coinml.data.records import Dataset
from coinml.errors import InvalidInputError
from coinml.ledger import DOWNLOADED, PENDING, Ledger

Verify = Callable[[Path], SimpleNamespace]


def verify(path: Path) -> SimpleNamespace:
    """Stands for the decode, which these files of a few bytes would not pass."""
    return SimpleNamespace(verdict="ok", reason=None, duration_s=1.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


def site(top: Path, *, first: str = "boil", second: str = "cut", videos: int = 4) -> Path:
    """Class folders whose files have the same names and sizes at every site."""
    for label in (first, second):
        (top / label).mkdir(parents=True)
    for number in range(videos):
        (top / first / f"v{number}.mp4").write_bytes(b"boil %d" % number)
        (top / second / f"v{number}.mp4").write_bytes(b"cut_ %d" % number)
    return top


def read(folder: Path | str, **options: str) -> Dataset:
    return load_dataset(f"folder:{folder}", **options)  # type: ignore[arg-type]


def collected(ledger: Ledger, folder: Path) -> Dataset:
    dataset = read(folder)
    ledger.register(dataset)
    adopt_in_place(ledger, dataset, verify=verify)
    return dataset


@pytest.mark.parametrize("verified", [True, False], ids=["verified", "registered"])
@pytest.mark.parametrize("other", ["swapped", "disjoint"])
def test_two_folders_of_one_name_are_refused_with_both_and_the_ways_on(
    ledger: Ledger, tmp_path: Path, verified: bool, other: str
) -> None:
    a = site(tmp_path / "siteA" / "videos")
    if other == "swapped":
        b = site(tmp_path / "siteB" / "videos", first="cut", second="boil")
    else:
        b = site(tmp_path / "siteB" / "videos", first="fry", second="bake")
    if verified:
        collected(ledger, a)
    else:
        ledger.register(read(a))
    before = ledger.rows("videos")
    for use in (ledger.register, ledger.rows_of):
        with pytest.raises(InvalidInputError) as caught:
            use(read(b))
        for part in (f"folder:{a}", f"folder:{b}", "--name", "coinml move-dataset", "'videos'"):
            assert part in str(caught.value)
    assert ledger.rows("videos") == before
    ledger.register(read(b, name="site_b"))
    assert ledger.datasets() == ["site_b", "videos"]
    ledger.register(read(a))


def test_a_ledger_that_recorded_no_place_knows_it_from_its_files(
    ledger: Ledger, tmp_path: Path
) -> None:
    a = site(tmp_path / "siteA" / "videos")
    collected(ledger, a)
    ledger.database.write(lambda c: c.execute(text("DELETE FROM datasets")).close())
    with pytest.raises(InvalidInputError, match="siteA"):
        ledger.register(read(site(tmp_path / "siteB" / "videos", first="cut", second="boil")))
    ledger.register(read(a))
    assert ledger.origin("videos") == f"folder:{a}"


def test_one_folder_under_other_paths_is_one_dataset(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = site(tmp_path / "siteA" / "videos")
    collected(ledger, a)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "videos").symlink_to(a)
    monkeypatch.chdir(a.parent)
    for path in ("videos", "./videos", str(tmp_path / "link" / "videos"), f"{a}/"):
        ledger.register(read(path))
    monkeypatch.chdir(a)
    ledger.register(read("."))
    assert ledger.origin("videos") == f"folder:{a}"
    assert {row.state for row in ledger.rows("videos")} == {DOWNLOADED}


def test_a_folder_that_moved_with_its_files_is_recognised(ledger: Ledger, tmp_path: Path) -> None:
    a = site(tmp_path / "siteA" / "videos")
    collected(ledger, a)
    moved = tmp_path / "nas" / "videos"
    moved.parent.mkdir()
    shutil.move(a, moved)
    (moved / "boil" / "new.mp4").write_bytes(b"boil 9")
    dataset = read(moved)
    ledger.register(dataset)
    assert ledger.origin("videos") == f"folder:{moved}"
    assert len(adopt_in_place(ledger, dataset, verify=verify).adopted) == 9
    assert all(Path(str(row.path)).is_relative_to(moved) for row in ledger.rows("videos"))


def test_a_folder_that_was_changed_elsewhere_is_moved_by_command(
    ledger: Ledger, tmp_path: Path
) -> None:
    collected(ledger, site(tmp_path / "siteA" / "videos"))
    dataset = read(site(tmp_path / "siteB" / "videos", first="cut", second="boil"))
    assert ledger.move(dataset) == 8
    # No file of the old place is used under the new one's labels.
    assert {row.state for row in ledger.rows_of(dataset)} == {PENDING}
    assert {row.path for row in ledger.rows_of(dataset)} == {None}
    assert len(adopt_in_place(ledger, dataset, verify=verify).adopted) == 8


def annotations(path: Path, labels: dict[str, str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {
        video_id: {"class": label, "subset": "training"} for video_id, label in labels.items()
    }
    path.write_text(json.dumps({"database": entries}))
    return path


def test_two_annotation_files_of_one_name_are_two_datasets(ledger: Ledger, tmp_path: Path) -> None:
    labels = {f"vid{number:08d}": "BoilEgg" for number in range(6)}
    first = annotations(tmp_path / "a" / "COIN.json", labels)
    ledger.register(load_dataset(str(first)))
    relabelled = annotations(tmp_path / "b" / "COIN.json", labels | {"vid00000000": "Cut"})
    disjoint = annotations(tmp_path / "c" / "COIN.json", {"other000001": "BoilEgg"})
    for path in (relabelled, disjoint):
        with pytest.raises(InvalidInputError) as caught:
            ledger.register(load_dataset(str(path)))
        assert str(first) in str(caught.value)
        assert str(path) in str(caught.value)
        assert "--name" in str(caught.value)
    # A part of it, a longer version, and a correction in place are the same dataset.
    part = dict(list(labels.items())[:3])
    ledger.register(load_dataset(str(annotations(tmp_path / "d" / "part.json", part))))
    longer = annotations(tmp_path / "e" / "COIN.json", labels | {"new00000000": "Cut"})
    ledger.register(load_dataset(str(longer)))
    annotations(longer, labels | {"vid00000001": "Cut"})
    ledger.register(load_dataset(str(longer)))
    assert ledger.row("coin", "vid00000001").label == "Cut"


def test_a_folder_does_not_take_the_name_of_an_annotation_file(
    ledger: Ledger, tmp_path: Path
) -> None:
    labels = {f"boil_v{number}": "boil" for number in range(3)}
    ledger.register(load_dataset(str(annotations(tmp_path / "COIN.json", labels))))
    with pytest.raises(InvalidInputError, match=r"COIN\.json"):
        ledger.register(read(site(tmp_path / "coin")))
