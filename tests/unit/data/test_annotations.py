"""Reading COIN's layout and taxonomy, and the messages for bad input."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from coinml.data.annotations import load_dataset
from coinml.errors import InvalidInputError
from coinml.selection import Selection


def entry(**changes: Any) -> dict[str, Any]:
    fields = {
        "class": "BoilEgg",
        "subset": "training",
        "duration": 60.5,
        "start": 0,
        "end": 60.0,
        "recipe_type": 3,
        "video_url": "https://www.youtube.com/embed/x",
        "annotation": [{"id": "7", "segment": [3.0, 9.0], "label": "heat the water"}],
    } | changes
    return {key: value for key, value in fields.items() if value is not ...}


def write(folder: Path, **entries: Any) -> str:
    path = folder / "COIN.json"
    path.write_text(json.dumps({"database": entries}))
    return str(path)


def test_oddities_of_the_official_file_are_read(tmp_path: Path) -> None:
    ref = write(
        tmp_path,
        **{
            "-starts_dash": entry(),
            "no_extent___": entry(start=..., end=...),
            "two_ids_____": entry(
                annotation=[
                    {"id": "9", "segment": [20, 30.5], "label": "stir"},
                    {"id": "8", "segment": [1.0, 2.0], "label": "stir"},
                ]
            ),
            "testing_side": entry(subset="testing"),
        },
    )
    dataset = load_dataset(ref)
    by_id = {video.video_id: video for video in dataset.videos}
    assert dataset.name == "coin"
    assert (by_id["-starts_dash"].start_s, by_id["-starts_dash"].end_s) == (0.0, 60.0)
    assert by_id["no_extent___"].start_s is None
    assert [(s.step_id, s.label, s.start_s) for s in by_id["two_ids_____"].steps] == [
        ("8", "stir", 1.0),
        ("9", "stir", 20.0),
    ]
    assert by_id["testing_side"].split == "test"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"class": ...}, "class"),
        ({"class": 3}, "class"),
        ({"subset": "validation"}, "subset"),
        ({"duration": "long"}, "duration"),
        ({"duration": 0}, "duration"),
        ({"duration": True}, "duration"),
        ({"start": -1}, "start"),
        ({"start": 9.0, "end": 9.0}, "end"),
        ({"end": float("nan")}, "end"),
        ({"annotation": {}}, "annotation"),
        ({"annotation": [{"id": "1", "segment": [5, 2], "label": "x"}]}, "segment"),
        ({"annotation": [{"id": "1", "segment": [5], "label": "x"}]}, "segment"),
        ({"annotation": [{"segment": [1, 2], "label": "x"}]}, "id"),
        ({"annotation": [{"id": 1, "segment": [1, 2]}]}, "label"),
    ],
)
def test_a_bad_entry_is_reported_with_file_id_and_field(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    ref = write(tmp_path, good_one____=entry(), bad_one_____=entry(**changes))
    with pytest.raises(InvalidInputError) as caught:
        load_dataset(ref)
    message = str(caught.value)
    assert ref in message
    assert "bad_one_____" in message
    assert f"'{field}'" in message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "'database'"),
        ('{"database": {}}', "empty"),
        ('{"database": {"a": {}, "a": {}}}', "duplicate keys: a"),
        ('{"database": {"../../etc": {}}}', "../../etc"),
    ],
)
def test_a_bad_file_is_reported_with_its_path(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        load_dataset(str(path))
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_missing_file_is_reported_with_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="folder:DIR"):
        load_dataset(str(tmp_path / "nothing.json"))


def test_an_unknown_class_is_reported_with_the_known_ones(tmp_path: Path) -> None:
    ref = write(tmp_path, good_one____=entry())
    with pytest.raises(InvalidInputError, match=r"Fry.*BoilEgg"):
        load_dataset(ref, classes=["Fry"])


@pytest.mark.parametrize("name", ["", "a/b", "../up", "x" * 65])
def test_dataset_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    ref = write(tmp_path, good_one____=entry())
    if name == "":
        assert load_dataset(ref, name=name).name == "coin"
        return
    with pytest.raises(InvalidInputError, match="--name"):
        load_dataset(ref, name=name)


def test_domains_are_read_from_the_workbook(tmp_path: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["Domains", "Targets"], ["Dish", "BoilEgg"], [None, "FrySteak"]):
        sheet.append(row)
    steps = book.create_sheet()
    for row in (
        ["Target Id", "Target Label", "Action Id", "Action Label"],
        [0, "BoilEgg", 7, "heat"],
    ):
        steps.append(row)
    book.save(tmp_path / "taxonomy.xlsx")
    ref = write(tmp_path, a=entry(), b=entry(**{"class": "FrySteak"}))
    assert {v.video_id: v.domain for v in load_dataset(ref).videos} == {"a": "Dish", "b": "Dish"}


def test_the_official_file_is_read_completely_within_two_seconds(shared_data: Path) -> None:
    begun = time.process_time()
    dataset = load_dataset(str(shared_data / "coin" / "COIN.json"))
    assert time.process_time() - begun < 2
    assert len(dataset.videos) == 11_015
    assert len(dataset.classes) == 180
    assert len({video.domain for video in dataset.videos}) == 12
    assert sum(video.video_id.startswith("-") for video in dataset.videos) > 50
    assert sum(video.start_s is None for video in dataset.videos) == 945


def test_the_taxonomy_keeps_both_ids_of_a_label(shared_data: Path) -> None:
    from coinml.data.taxonomy import find_taxonomy

    taxonomy = find_taxonomy(shared_data / "coin")
    assert taxonomy is not None
    assert len(taxonomy.domains) == 180
    assert len(taxonomy.steps) == 778
    labels = list(taxonomy.steps.values())
    assert len({label for label in labels if labels.count(label) > 1}) == 25


@pytest.mark.parametrize("ref", ["", ".", "/"])
def test_a_folder_in_place_of_the_file_is_refused_in_words(ref: str, tmp_path: Path) -> None:
    selection = Selection(dataset=ref, name="coin")
    with pytest.raises(InvalidInputError, match=r"[Dd]irectory"):
        selection.load(tmp_path)
