"""Names from outside: class names and labels of annotation files, folders and taxonomies."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from coinml.data.annotations import load_dataset
from coinml.data.names import plain_name
from coinml.data.records import Dataset
from coinml.errors import InvalidInputError

CAFE = unicodedata.normalize("NFC", "café")


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "class": "BoilEgg",
        "subset": "training",
        "duration": 60.0,
        "start": 0,
        "end": 50.0,
        "annotation": [{"id": "7", "segment": [3.0, 9.0], "label": "heat"}],
    } | changes


def annotations(folder: Path, *changes: dict[str, Any]) -> Path:
    path = folder / "COIN.json"
    entries = {f"vid{number:08d}": entry(**change) for number, change in enumerate(changes)}
    path.write_text(json.dumps({"database": entries}))
    return path


def class_folders(top: Path, *names: str | bytes, videos: int = 3) -> Path:
    for name in names:
        folder = top / (name if isinstance(name, str) else name.decode("utf-8", "surrogateescape"))
        folder.mkdir(parents=True)
        for number in range(videos):
            (folder / f"v{number}.mp4").touch()
    return top


def load_folder(top: Path) -> Dataset:
    return load_dataset(f"folder:{top}", name="x")


@pytest.mark.parametrize(
    ("found", "plain"),
    [
        ("BoilEgg ", "BoilEgg"),
        ("\ufeffBoilEgg\u200b", "BoilEgg"),
        ("boil\negg\t", "boil egg"),
        ("boil\u00a0egg", "boil egg"),
        ("pullthe  oil", "pullthe  oil"),
        (unicodedata.normalize("NFD", CAFE), CAFE),
        ("煮鸡蛋 🧅", "煮鸡蛋 🧅"),
        *(
            (f"Cu{mark}t", "Cut")
            for mark in "\u034f\u180e\u200e\u202e\u2066\u2800\u3164\ufe0f\ufff9"
        ),
        ("क्\u200dष", "क्\u200dष"),
    ],
)
def test_a_class_has_one_spelling(tmp_path: Path, found: str, plain: str) -> None:
    assert plain_name(found, "here") == plain
    dataset = load_dataset(str(annotations(tmp_path, {"class": found}, {"class": plain})))
    assert dataset.classes == (plain,)
    assert dataset.videos[0].video_id == "vid00000000"
    assert bool(dataset.notes) == (found != plain)
    assert found == plain or ascii(found) in dataset.notes[0]


@pytest.mark.parametrize("field", ["class", "label", "id"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Bake \ud83c", "not valid Unicode"),
        ("Bake\0", "control characters"),
        ("\x1b[31mBake", "control characters"),
        ("x" * 6000, "6,000 characters"),
        ("Bake\ue000", "without a meaning"),
        ("Bake\ufffe", "without a meaning"),
    ],
)
def test_what_is_no_name_is_refused_with_file_field_and_repr(
    tmp_path: Path, field: str, name: str, says: str
) -> None:
    step = {"id": "7", "segment": [3.0, 9.0], "label": "heat"}
    change = {"class": name} if field == "class" else {"annotation": [step | {field: name}]}
    path = annotations(tmp_path, {}, change)
    with pytest.raises(InvalidInputError, match=says) as caught:
        load_dataset(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert "vid00000001" in message
    assert f"'{field}'" in message
    assert repr(name)[:20] in message
    assert message.isprintable()
    assert len(message) < 400


@pytest.mark.parametrize(
    "number",
    ["1" + "0" * 400, "9" * 5000, "1e400", "-1e400", "NaN", "Infinity", '"60"', "true", "[]"],
)
@pytest.mark.parametrize("field", ["duration", "start", "segment"])
def test_numbers_that_are_no_seconds_are_refused(tmp_path: Path, number: str, field: str) -> None:
    path = annotations(tmp_path, {})
    old = {"duration": '"duration": 60.0', "start": '"start": 0', "segment": "[3.0, 9.0]"}[field]
    new = f"[{number}, 9.0]" if field == "segment" else f'"{field}": {number}'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(InvalidInputError, match="not a number of seconds") as caught:
        load_dataset(str(path))
    assert "vid00000000" in str(caught.value)
    assert f"'{field}'" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("number", ["1e308", "1e30", str(2**70), "1000001"])
@pytest.mark.parametrize("field", ["duration", "segment"])
def test_times_that_no_video_has_are_refused(tmp_path: Path, number: str, field: str) -> None:
    path = annotations(tmp_path, {})
    old = {"duration": '"duration": 60.0', "segment": "[3.0, 9.0]"}[field]
    new = f"[3.0, {number}]" if field == "segment" else f'"duration": {number}'
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InvalidInputError, match="more than 1,000,000") as caught:
        load_dataset(str(path))
    assert "vid00000000" in str(caught.value)
    assert f"'{field}'" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[" * 200_000, "nested too deeply"),
        (b'{"database": ' + b'{"a":' * 200_000, "nested too deeply"),
        (b'{"database": {"a": ' + b"9" * 5000 + b"}}", "'a': expected an object"),
        (gzip.compress(b'{"database": {}}', mtime=0), "compressed with gzip.*gunzip"),
        (bz2.compress(b"{}"), "compressed with bzip2.*bunzip2"),
        (lzma.compress(b"{}"), "compressed with xz.*unxz"),
        (b"PK\x03\x04", "a zip archive.*unzip"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS.*git lfs pull"),
        ('{"database": {"a": "Café"}}'.encode("latin-1"), "not utf-8.*iconv"),
        (b'{"database": "\xff\xfe"}', "not utf-8"),
        (b"\0\0\0", "not JSON"),
        (b"", "not JSON"),
        (b'{"database": [{"id": "a"}]}', "'database': .*is not an object"),
        (b'{"database": null}', "'database': None is not an object"),
        (b'{"videos": {}}', "expected an object with the key 'database'"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_json_text_is_refused_in_words(
    tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "COIN.json"
    path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=says) as caught:
        load_dataset(str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path: Path, encoding: str) -> None:
    path = annotations(tmp_path, {"class": CAFE})
    text = json.dumps(json.loads(path.read_text()), ensure_ascii=False)
    path.write_bytes(text.encode(encoding))
    assert load_dataset(str(path)).classes == (CAFE,)


def test_a_missing_annotation_may_be_null(tmp_path: Path) -> None:
    assert load_dataset(str(annotations(tmp_path, {"annotation": None}))).videos[0].steps == ()


def test_classes_that_look_alike_are_kept_apart_and_named(tmp_path: Path) -> None:
    dataset = load_dataset(str(annotations(tmp_path, {}, {"class": "boilegg"}, {"class": "Cut"})))
    assert dataset.classes == ("BoilEgg", "Cut", "boilegg")
    assert dataset.notes == ("classes that look alike and are kept apart: 'BoilEgg', 'boilegg'",)
    folders = load_folder(class_folders(tmp_path / "d", "Boil  it", "boil it"))
    assert folders.classes == ("Boil  it", "boil it")
    assert "'Boil  it', 'boil it'" in folders.notes[0]


def test_two_class_folders_of_one_name_are_refused_by_both(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", CAFE)
    with pytest.raises(InvalidInputError, match="have one name") as caught:
        load_folder(class_folders(tmp_path / "a", CAFE, decomposed))
    assert ascii(CAFE) in str(caught.value)
    assert ascii(decomposed) in str(caught.value)
    with pytest.raises(InvalidInputError, match="have one name"):
        load_folder(class_folders(tmp_path / "b", "boil", "boil "))


def test_names_of_folders_and_files_are_spelled_as_in_annotations(tmp_path: Path) -> None:
    top = class_folders(tmp_path / "a", unicodedata.normalize("NFD", CAFE), "boil\negg")
    dataset = load_folder(top)
    assert dataset.classes == ("boil egg", CAFE)
    assert {video.video_id for video in dataset.videos} == {
        f"{label}/v{number}" for label in dataset.classes for number in range(3)
    }
    assert all(video.path and Path(video.path).is_file() for video in dataset.videos)
    chosen = load_dataset(f"folder:{top}", name="x", classes=[unicodedata.normalize("NFD", CAFE)])
    assert chosen.classes == (CAFE,)


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"a\x1b[31m.mp4", b"a\nb.mp4"])
def test_a_file_name_that_is_no_text_is_refused_by_its_repr(tmp_path: Path, name: bytes) -> None:
    top = class_folders(tmp_path / "a", "boil", "cut")
    wrong = top / "boil" / name.decode("utf-8", "surrogateescape")
    wrong.touch()
    with pytest.raises(InvalidInputError) as caught:
        load_folder(top)
    assert repr(f"boil/{wrong.name}") in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_folder_name_that_is_no_text_is_refused_by_its_repr(tmp_path: Path) -> None:
    top = class_folders(tmp_path / "a", "boil", b"caf\xe9")
    with pytest.raises(InvalidInputError, match=r"not valid Unicode") as caught:
        load_folder(top)
    assert r"'caf\udce9'" in str(caught.value)


def test_a_taxonomy_is_spelled_like_the_annotations(tmp_path: Path) -> None:
    path = annotations(tmp_path, {"class": CAFE})
    table = tmp_path / "taxonomy_domain_target_mapping.csv"
    text = f"Domains,Targets\nDrinks,{unicodedata.normalize('NFD', CAFE)} \n"
    table.write_text(text, encoding="utf-8")
    assert load_dataset(str(path)).videos[0].domain == "Drinks"
    table.write_bytes(text.encode("utf-8").replace(b"cafe", b"caf\xe9"))
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        load_dataset(str(path))
