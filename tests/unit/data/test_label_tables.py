"""Datasets that are CSV files of labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from coinml.data.annotations import load_dataset
from coinml.data.records import Dataset
from coinml.errors import InvalidInputError
from coinml.ledger import Ledger
from coinml.ledger.origins import origin_of
from coinml.selection import Selection


def table(folder: Path, text: str, *, files: bool = True) -> Path:
    """A CSV file of labels, with the files that it names."""
    path = folder / "labels.csv"
    path.write_text(text)
    for line in text.splitlines()[1:] if files else []:
        file = folder / line.split(",")[0].strip('"')
        if file.suffix == ".mp4":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"")
    return path


def load(path: Path, **how: object) -> Dataset:
    return load_dataset(str(path), **how)  # type: ignore[arg-type]


def rows(count: int, *more: str) -> str:
    names = [f"v{number}.mp4,{'ab'[number % 2]}" for number in range(count)]
    return "\n".join(["path,label", *names, *more])


def test_videos_have_the_labels_and_splits_of_their_rows(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "label,path,split,group\n"
        'fall,x/one.mp4,train,anna\n\n"adl, sitting",y/two.mp4,val,ben\nfall,three.mp4,test,\n',
        files=False,
    )
    for name in ("x/one.mp4", "y/two.mp4", "three.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    dataset = load(path)
    assert dataset.name == "labels"
    assert dataset.official_split
    assert [
        (video.video_id, video.label, video.split, video.subset) for video in dataset.videos
    ] == [
        ("x/one", "fall", "train", "training"),
        ("y/two", "adl, sitting", "val", "training"),
        ("three", "fall", "test", "testing"),
    ]
    assert dataset.videos[0].path == str(tmp_path / "x/one.mp4")
    assert load(path, name="mine", classes=("fall",)).classes == ("fall",)


def test_without_a_split_groups_stay_together(tmp_path: Path) -> None:
    lines = [f"v{number}.mp4,{'ab'[number % 2]},g{number // 4}" for number in range(80)]
    dataset = load(table(tmp_path, "\n".join(["path,label,group", *lines])))
    assert not dataset.official_split
    sides: dict[int, set[str]] = {}
    for number, video in enumerate(dataset.videos):
        sides.setdefault(number // 4, set()).add(video.split)
    assert all(len(one) == 1 for one in sides.values())
    assert set(Counter(video.split for video in dataset.videos)) == {"train", "val", "test"}


def test_val_is_cut_from_train_where_no_row_is_val(tmp_path: Path) -> None:
    lines = [f"v{n}.mp4,a,{'test' if n % 4 == 0 else 'train'},g{n // 8}x{n % 4}" for n in range(96)]
    dataset = load(table(tmp_path, "\n".join(["path,label,split,group", *lines])))
    counts = Counter(video.split for video in dataset.videos)
    assert counts["test"] == 24
    assert 0 < counts["val"] < 36


def test_files_elsewhere_have_ids_too(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "lists").mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / "clips" / name).write_bytes(b"")
    path = tmp_path / "lists" / "labels.csv"
    path.write_text(
        f"path,label,split\n../clips/a.mp4,x,train\n{tmp_path}/clips/b.mp4,x,val\n"
        "../clips/./c.mp4,x,test\n"
    )
    below_root = str(tmp_path / "clips").lstrip("/")
    ids = [video.video_id for video in load(path).videos]
    assert ids == [f"{below_root}/{name}" for name in "abc"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"line 1: no column 'path', no column 'label'"),
        ("path\na.mp4", r"line 1: no column 'label'; the columns path, label, split, group"),
        ("path;label\na.mp4;x", r"unknown column 'path;label'"),
        ("path,label,lable\na.mp4,x,y", r"unknown column 'lable'"),
        ("path,label,label\na.mp4,x,y", r"column 'label' twice"),
        ("path,label", r"no rows below the header path,label"),
        ("path,label\na.mp4,x\nb.mp4, \n", r"line 3, column label: empty"),
        ("path,label\n,x\n", r"line 2, column path: empty"),
        (
            "path,label\na.mp4,x,y\n",
            r"line 2: 3 cells for 2 columns: path 'a\.mp4', label 'x', then 'y'",
        ),
        ("path,label\na.txt,x\n", r"line 2, column path: 'a\.txt' is no video file"),
        ("path,label,split\na.mp4,x,training\n", r"line 2, column split: 'training' is not one of"),
        ("path,label,split\na.mp4,x,\n", r"line 2, column split: '' is not one of"),
        (
            "path,label\na.mp4,x\nb.mp4,y\n./a.mp4,x\n",
            r"line 4, column path: '\./a\.mp4' is in line 2, too",
        ),
        ("path,label\na.mp4,x\na.mp4,y\n", r"as 'x' and 'y'; one video has one label.*multi-label"),
        ("path,label\na.mp4,x|y\n", r"line 2, column label: 'x\|y' looks like several labels"),
        ('path,label\na.mp4,x\nb.mp4,y\nc.mp4,"x, y"\n', r"line 4.*looks like several"),
        ('path,label\na.mp4,"x\n', r"""line 2: 'a\.mp4,"x' is not CSV"""),
        ('path,label\na.mp4,"x\nb.mp4,x\nc.mp4,y\n', r"""line 2: 'a\.mp4,"x' is not CSV"""),
        ('path,label\na.mp4,"x"y\n', r"""line 2: .* is not CSV .* each of its own twice"""),
        ('path,label\n"a\n.mp4",x,y\n', r"line 2: 3 cells for 2 columns"),
        (
            "path,label,split,group\na.mp4,x,train,g\nb.mp4,x,test,g\n",
            r"column split: group 'g' is on several sides: 'train' in line 2, 'test' in line 3;",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = table(tmp_path, text)
    with pytest.raises(InvalidInputError, match=rf"labels\.csv: .*{says}"):
        load(path)


def test_absent_files_are_named_with_their_lines(tmp_path: Path) -> None:
    path = table(tmp_path, rows(12), files=True)
    path.write_text(rows(12, "gone.mp4,a", "./lost.mp4,b"))
    absent = (
        rf"line 14, column path: 'gone\.mp4' \({tmp_path}/gone\.mp4\), line 15, column path: "
        rf"'\./lost\.mp4' \({tmp_path}/lost\.mp4\): no such file; paths are relative to {tmp_path}"
    )
    with pytest.raises(InvalidInputError, match=absent):
        load(path)


def test_two_files_of_one_id_are_refused(tmp_path: Path) -> None:
    path = table(tmp_path, rows(12, "v3.mkv,b"))
    (tmp_path / "v3.mkv").write_bytes(b"")
    with pytest.raises(
        InvalidInputError,
        match=r"lines 5 and 14, column path: 'v3\.mp4' and 'v3\.mkv' .*the same id 'v3'",
    ):
        load(path)


def test_bytes_that_are_not_utf8_are_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = table(tmp_path, rows(12))
    path.write_bytes(b"\xef\xbb\xbf" + rows(12).encode())
    assert len(load(path).videos) == 12
    path.write_bytes(rows(12).encode() + b"\nv1.mp4,caf\xe9")
    with pytest.raises(InvalidInputError, match=r"line 14: byte \d+ \(e9\) is not UTF-8"):
        load(path)


def test_a_group_option_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="its groups in the column 'group'"):
        load(table(tmp_path, rows(12)), group="x")


def test_the_files_are_own_files_and_the_ledger_knows_the_place(tmp_path: Path) -> None:
    path = table(tmp_path, rows(12))
    chosen = Selection(dataset=str(path))
    assert chosen.is_folder
    assert chosen.title == "labels"
    dataset = chosen.load(tmp_path)
    assert origin_of(dataset) == str(path.resolve())
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as ledger:
        assert ledger.register(dataset) == 12
        assert ledger.register(dataset) == 0
